/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Structures shared with user space; zproxy/steering/layout.py is their other description.
 *
 * Addresses are byte arrays in network order, IPv4 as ::ffff:a.b.c.d, ports are numbers in host order: so any
 * dump of a map reads well. Widths are fixed and padding is explicit, because a hash key is compared byte by
 * byte. A change here is a change of ZP_LAYOUT.
 */
#ifndef ZP_TYPES_H
#define ZP_TYPES_H

#define ZP_LAYOUT 1

#define ZP_POD_IP4 (1u << 0) /* ip4 is set */
#define ZP_POD_IP6 (1u << 1) /* ip6 is set */

struct zp_pod {
	u32 flags;
	u32 generation; /* counts how often user space has attached this pod */
	u32 slot;	/* of the pod's plaintext listener in zp_lsn */
	u16 outbound_port;
	u16 plaintext_port;
	u16 hbone_port;
	u16 pad;
	u8 ip4[4]; /* where this pod's own connections are sent, by family */
	u8 ip6[16];
	char uid[40];
	char name[64]; /* namespace/name, cut to fit */
};

struct zp_ip {
	u8 ip[16] __attribute__((aligned(4)));
};

struct zp_podip {
	u64 netns; /* cookie; a pod's address is known before the pod is switched on in zp_pods */
	u32 slot;
	u16 hbone_port;
	u16 pad;
};

/* What an app dialled. */
struct zp_origin {
	u8 ip[16] __attribute__((aligned(4)));
	u16 port;
	u16 family; /* of the address: AF_INET for a v4-mapped one */
	u32 pad;
};

/* A steered client socket: what it dialled, and where it was sent instead. */
struct zp_client {
	struct zp_origin orig;
	struct zp_ip via;
	u16 via_port;
	u16 pad[3];
	u64 cookie; /* its key in zp_conn */
};

struct zp_conn {
	u64 netns;
	u64 started_ns; /* bpf_ktime_get_ns at connect() */
	u8 orig_ip[16] __attribute__((aligned(4)));
	u8 src_ip[16] __attribute__((aligned(4))); /* zero until the kernel has chosen it */
	u16 orig_port;
	u16 src_port;
	u16 family;
	u16 pad;
};

/* A TCP flow, source first, as its initiator's SYN has it. */
struct zp_flow {
	u8 src_ip[16] __attribute__((aligned(4)));
	u8 dst_ip[16] __attribute__((aligned(4)));
	u16 src_port;
	u16 dst_port;
};

/* Addresses repeat between namespaces (every pod has its own lo), cookies never do. */
struct zp_tuple_key {
	u64 netns;
	struct zp_flow flow;
	u32 pad;
};

struct zp_meta {
	u32 layout;
	u32 pad;
	char build[40]; /* hash of the sources that the pinned programs were made from */
};

#endif
