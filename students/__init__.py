"""Light hand models: any timm backbone with a decoder."""
