"""The official CRI conformance suite against this runtime, with images of our own making.

The suite pulls two dozen images by their upstream names. They are rebuilt here from
Debian's packages and a few lines of C, served by a registry on loopback, and every
registry host is mirrored to it.
"""
