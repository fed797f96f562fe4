"""The client of istio-cni's protocol, which hands over pods by descriptors of their namespaces."""
