"""Images: references, registry client, archives, the store, and the backends on top of them."""
