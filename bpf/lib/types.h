/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Structures shared with user space; zproxy/steering/layout.py is their other description.
 *
 * Addresses are byte arrays in network order, IPv4 as ::ffff:a.b.c.d, ports are numbers in host order: so any
 * dump of a map reads well. Widths are fixed and padding is explicit, because a hash key is compared byte by
 * byte. A change here is a change of ZP_LAYOUT.
 */
#ifndef ZP_TYPES_H
#define ZP_TYPES_H

#define ZP_LAYOUT 4

#define ZP_POD_IP4	 (1u << 0) /* ip4 is set */
#define ZP_POD_IP6	 (1u << 1) /* ip6 is set */
#define ZP_POD_DNS	 (1u << 2) /* DNS goes to dns_port */
#define ZP_POD_UDP_BLOCK (1u << 3) /* UDP that would leave in the clear is dropped, DNS apart */
#define ZP_POD_FAIL_OPEN                                                                                     \
	(1u << 4)	       /* while no daemon is alive, traffic passes as if the pod were none of ours */
#define ZP_POD_TWICE (1u << 5) /* the programs are at the pod's cgroup and at the root: each runs twice */

struct zp_pod {
	u32 flags;
	u32 generation; /* counts how often user space has attached this pod */
	u32 slot;	/* of the pod's plaintext listener in zp_lsn */
	u16 outbound_port;
	u16 plaintext_port;
	u16 hbone_port;
	u16 dns_port;
	u8 ip4[4]; /* where this pod's own connections are sent, by family */
	u8 ip6[16];
	char uid[40];
	char name[64]; /* namespace/name, cut to fit */
	u64 since_ns;  /* bpf_ktime_get_ns when it was switched on; 0 where nothing may follow from it */
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
	u16 is_dialling; /* 1 from connect() until the kernel has chosen the source port */
	u32 epoch;	 /* of the zp_podstat that counts it as open */
	u64 cookie;	 /* its key in zp_conn; 0 when the app has closed it */
	u64 netns;
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

/* What a pod does, counted. Programs add; user space makes the entry and reads it. */
struct zp_podstat {
	u64 open;	 /* steered client sockets that the app has not closed */
	u64 opened;	 /* of all time; a socket that connects twice counts twice */
	u64 refused;	 /* connects that were refused, and clear-text TCP that was dropped */
	u64 inbound;	 /* flows recorded for the plaintext listener */
	u64 dns;	 /* queries that were captured */
	u64 udp_packets; /* that left in the clear, or would have */
	u64 udp_bytes;
	u64 udp_blocked; /* of these packets, dropped */
	u32 ports;	 /* size of the pod's ephemeral range: the most that `open` can be. By user space. */
	u32 epoch;	 /* tells this entry from one of an earlier enrolment. By user space. */
};

/* Where UDP of a pod goes outside the mesh. Both ports are 0 for later fragments, which have none. */
struct zp_udp_key {
	u64 netns;
	u8 dst_ip[16] __attribute__((aligned(4)));
	u16 dst_port; /* 0 for a client that the pod serves: it has another port every time */
	u16 src_port; /* then, and only then: the port that the pod serves it from */
	u16 pad[2];
};

struct zp_udp {
	u64 packets;
	u64 bytes;    /* of IP packets, headers included, as tcpdump's `length` is not */
	u64 blocked;  /* of these packets, dropped */
	u64 first_ns; /* bpf_ktime_get_ns */
	u64 last_ns;
};

/* A resolver that an app of a pod has asked, under the alias address that stands for it. */
struct zp_alias {
	u64 netns;
	u8 ip[16] __attribute__((aligned(4)));
};

struct zp_resolver {
	struct zp_origin orig;
	u64 used_ns;
};

struct zp_heart {
	u64 beat_ns; /* bpf_ktime_get_ns of the daemon's last sign of life; 0: it has said good-bye */
};

struct zp_meta {
	u32 layout;
	u32 pad;
	char build[40]; /* hash of the sources that the pinned programs were made from */
};

#endif
