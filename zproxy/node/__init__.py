"""The node daemon's rooms: pods and their enrolment, routes in their namespaces, the control socket."""
