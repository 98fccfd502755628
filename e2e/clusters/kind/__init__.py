"""Genuine kind: with the user's Docker and the released node image, or with a daemon and an image of our own."""
