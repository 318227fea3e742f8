"""Attacks on the cluster, by the role of the attacker. Each test is one attack that has to fail."""
