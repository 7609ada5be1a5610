"""The pod network: CNI with the node's own configuration."""
