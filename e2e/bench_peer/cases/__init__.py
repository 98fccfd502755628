"""What is measured of a driver that serves; each case is a function of a ``Serving``."""
