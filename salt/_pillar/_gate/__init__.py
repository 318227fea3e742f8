"""What the gate of the pillar is made of: see :mod:`qhub`."""
