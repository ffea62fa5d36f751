"""Events × kernel model → a three-valued verdict for each SYN."""
