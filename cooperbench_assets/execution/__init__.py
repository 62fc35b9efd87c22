"""How pairs are run: plan, slots, server, sandboxes, promotion."""
