"""The chained CNI plugin: pods are enrolled at their birth, before their first container runs."""
