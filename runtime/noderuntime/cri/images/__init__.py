"""The schema of what people ask of our store of images beside CRI, and its stubs."""
