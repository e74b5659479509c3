"""Safe reading and writing of files: readers execute no code, writers leave no partial file."""
