"""Image archives: the output of ``docker save``, and OCI image layouts."""
