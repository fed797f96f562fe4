/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Sizes and constants of the steering programs. What differs per pod (addresses, ports) is in zp_pods. */
#ifndef ZP_CONFIG_H
#define ZP_CONFIG_H

/* The directory in bpffs where the maps of this node are pinned; the loader gives it with -D. */
#ifndef ZP_MAP_DIR
#error "ZP_MAP_DIR is not set"
#endif

/* ZP_HAS_MPTCP: the running kernel has MPTCP, whose socket type a helper returns; given by the loader. */

/* ZP_HAS_TC_COOKIE: tc programs may ask for a socket's netns cookie (Linux 6.13); given by the loader. */

/* Pods of one node. Kubernetes plans for 110 to 500; entries are allocated when used. */
#define ZP_MAX_PODS 4096

/* Addresses of all pods: up to two families and a secondary interface each. */
#define ZP_MAX_POD_IPS 16384

/* Steered client connections that `zp_conn` shows and hand-overs under way. LRU: a full map forgets the
 * oldest, and forgetting costs a line in a dump or a reset connection, never a wrong destination.
 */
#define ZP_MAX_CONNS 65536

/* UDP destinations that zp_udp remembers, and flows of kubelet's probes. LRU. */
#define ZP_MAX_UDP    16384
#define ZP_MAX_PROBES 16384

/* Flows of connects under way when a pod is enrolled. LRU. */
#define ZP_MAX_BEGUN 16384

/* How long a connect() that has passed the hook may take to its SYN. Mostly microseconds; but the call may be
 * preempted there, or wait for memory.
 */
#define ZP_BEGINNING_NS 1000000000ull

/* Addresses of the node that probes come from, in the probe mode that goes by addresses. */
#define ZP_MAX_NODE_IPS 1024

/* How long after its SYN a flow of kubelet's may still be without a socket in the pod: SYN cookies, and SYNs
 * that got lost. kubelet gives up earlier.
 */
#define ZP_PROBE_NS 60000000000ull

/* Resolvers under an alias: ZP_POD_RESOLVERS for each pod, so that no pod can push out another's. */
#define ZP_MAX_RESOLVERS 65536
#define ZP_POD_RESOLVERS 64

/* Where they are: 240.15.53.0/24 and fd16:9254:7127:1553::/64, local to the pod by a route of its own. The
 * first is reserved and routed nowhere, the second a neighbour of the network that Istio has chosen at
 * random.
 */
#define ZP_ALIAS_IP4   0xf00f3500
#define ZP_ALIAS_IP6_0 0xfd169254
#define ZP_ALIAS_IP6_1 0x71271553

/* A daemon that has shown no life for so long is dead: three beats. */
#define ZP_HEART_NS 3000000000ull

/* Inbound packets between tc and the socket lookup: the same softirq, so a handful. */
#define ZP_MAX_INBOUND 16384

/* Linux chooses source ports from here on (the default of ip_local_port_range); Windows and macOS higher. */
#define ZP_EPHEMERAL 32768

/* 169.254.7.127 and fd16:9254:7127:1337:ffff:ffff:ffff:ffff: the source that Istio's host rules give to
 * kubelet probes. An app answering or calling it talks to the host, not to the mesh.
 */
#define ZP_PROBE_IP4   0xa9fe077f
#define ZP_PROBE_IP6_0 0xfd169254
#define ZP_PROBE_IP6_1 0x71271337

#endif
