"""The kinds of devices, one room each."""
