"""What the doctor looks at, and how: see :mod:`doctor`."""
