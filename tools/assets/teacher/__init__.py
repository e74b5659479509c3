"""Parts of tools/assets/train_teacher.py."""
