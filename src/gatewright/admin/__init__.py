"""The control plane: what operators and machines ask of a running gateway, on its own address."""
