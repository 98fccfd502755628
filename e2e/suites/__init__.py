"""The driver on a real Kubernetes, as its users meet it. How to run it and what covers what: docs/dev/e2e.md."""
