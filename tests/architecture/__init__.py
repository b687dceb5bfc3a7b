"""What the tests of the architecture are made of: the source as data, its rules, the documented request path."""
