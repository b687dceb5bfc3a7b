"""What stands around every call, one file each."""
