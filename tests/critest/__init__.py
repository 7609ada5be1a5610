"""The official CRI conformance suite against this runtime, with rebuilt images.

The suite pulls two dozen images by their upstream names. This package builds them from
Debian's packages and a few lines of C, served by a registry on loopback, and every
registry host is mirrored to it.
"""
