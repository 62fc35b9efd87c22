"""The built-in benchmark: small libraries, features, tests, and the scripted agents that work on them."""
