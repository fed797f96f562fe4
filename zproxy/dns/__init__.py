"""DNS for the pods: what the mesh knows is answered, everything else goes to the resolver that was asked."""
