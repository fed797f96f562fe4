/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every map: what it holds, who writes it, who removes it. The kernel keeps 15 characters of a name.
 *
 * bcc creates and pins a map at the path after the colon, or takes the one that is pinned there without
 * comparing anything: zproxy/steering/install.py compares types and sizes before it lets the loader reuse a
 * map.
 */
#ifndef ZP_MAPS_H
#define ZP_MAPS_H

#include "config.h"
#include "reasons.h"
#include "types.h"

#define ZP_MAP(kind, key, leaf, name, size) ZP_MAP_FLAGS(kind, key, leaf, name, size, 0)
#define ZP_MAP_FLAGS(kind, key, leaf, name, size, flags)                                                     \
	BPF_F_TABLE(kind ":" ZP_MAP_DIR "/" #name, key, leaf, name, size, flags)

/* bcc's BPF_SK_STORAGE cannot be pinned; this is it with a path. */
#define ZP_SK_STORAGE(leaf_t, name)                                                                          \
	struct name##_table_t {                                                                              \
		int key;                                                                                     \
		leaf_t leaf;                                                                                 \
		void *(*sk_storage_get)(void *, void *, int);                                                \
		int (*sk_storage_delete)(void *);                                                            \
		u32 flags;                                                                                   \
	};                                                                                                   \
	__attribute__((section("maps/sk_storage:" ZP_MAP_DIR "/" #name))) struct name##_table_t name = {     \
	    .flags = BPF_F_NO_PREALLOC,                                                                      \
	};                                                                                                   \
	BPF_ANNOTATE_KV_PAIR(name, int, leaf_t)

/* netns cookie -> the pod in it. Written by user space, LAST: this entry switches steering on. */
ZP_MAP_FLAGS("hash", u64, struct zp_pod, zp_pods, ZP_MAX_PODS, BPF_F_NO_PREALLOC);

/* pod address -> netns. A pod's own addresses are not steered; tc finds the pod here, because it cannot read
 * a netns cookie before Linux 6.13. Written and removed by user space.
 */
ZP_MAP_FLAGS("hash", struct zp_ip, struct zp_podip, zp_podip, ZP_MAX_POD_IPS, BPF_F_NO_PREALLOC);

/* socket cookie -> steered client connection, for people: socket storage cannot be listed.
 * Written at connect(), removed when the app closes the socket.
 */
ZP_MAP("lru_hash", u64, struct zp_conn, zp_conn, ZP_MAX_CONNS);

/* flow in a netns -> what the client dialled. Written before the SYN leaves, removed when the proxy's side is
 * established, or when the connection was refused or given up.
 */
ZP_MAP("lru_hash", struct zp_tuple_key, struct zp_origin, zp_tuple, ZP_MAX_CONNS);

/* inbound flow -> listener slot. Written by tc, removed by the socket lookup of the same packet. */
ZP_MAP("lru_hash", struct zp_flow, u32, zp_in, ZP_MAX_INBOUND);

/* slot -> the pod's plaintext listener. Written by user space; empties itself when the listener closes.
 * The value is 8 bytes so that a dump shows the socket's cookie (4 bytes cannot be read back).
 */
ZP_MAP("sockmap", u32, u64, zp_lsn, ZP_MAX_PODS);

/* client socket -> what it dialled. Never evicted: the truth behind getpeername(). */
ZP_SK_STORAGE(struct zp_client, zp_sock);

/* accepted socket of the proxy -> what the client dialled: the answer to SO_ORIGINAL_DST. */
ZP_SK_STORAGE(struct zp_origin, zp_orig);

/* socket of the proxy -> 1. Written by user space through the socket's descriptor: the ONLY exemption,
 * because a mark can be set by anyone with CAP_NET_RAW, which containers have by default.
 */
ZP_SK_STORAGE(u32, zp_exempt);

/* netns cookie -> what the pod does, in numbers. Made by user space before the pod's entry in zp_pods. */
ZP_MAP_FLAGS("hash", u64, struct zp_podstat, zp_podstat, ZP_MAX_PODS, BPF_F_NO_PREALLOC);

/* UDP destination -> what left for it in the clear. Written at the pod's interfaces. */
ZP_MAP("lru_hash", struct zp_udp_key, struct zp_udp, zp_udp, ZP_MAX_UDP);

/* flow in a netns -> when it was noted. A connect() that was under way when the pod was switched on, and goes
 * on in the clear like the connections that stood. Written by user space and at the pod's interfaces.
 */
ZP_MAP("lru_hash", struct zp_tuple_key, u64, zp_begun, ZP_MAX_BEGUN);

/* alias address -> the resolver that the app asked. Written when it asks. */
ZP_MAP_FLAGS("hash", struct zp_alias, struct zp_resolver, zp_resolver, ZP_MAX_RESOLVERS, BPF_F_NO_PREALLOC);

/* inbound flow -> when kubelet began it (bpf_ktime_get_ns). Written before its SYN leaves. */
ZP_MAP("lru_hash", struct zp_flow, u64, zp_probe, ZP_MAX_PROBES);

/* address of this node -> 1: what comes from it is a probe. By user space; empty in other probe modes. */
ZP_MAP_FLAGS("hash", struct zp_ip, u32, zp_nodeip, ZP_MAX_NODE_IPS, BPF_F_NO_PREALLOC);

/* 0 -> the socket whose connect() a program has just decided upon, on this CPU. See zp_count_once(). */
ZP_MAP("percpu_array", u32, u64, zp_turn, 1);

/* 0 -> the daemon's last sign of life. Asked only for pods that are to fail open. */
ZP_MAP("array", u32, struct zp_heart, zp_heart, 1);

/* enum zp_reason -> count */
ZP_MAP("percpu_array", u32, u64, zp_stats, ZP_REASONS);

/* 0 -> who made these pins. Written by user space when all is in place. */
ZP_MAP("array", u32, struct zp_meta, zp_meta, 1);

static __always_inline struct zp_podstat *zp_stat_of(u64 netns)
{
	return zp_podstat.lookup(&netns);
}

/* Add to a counter of the pod: zp_tally(netns, refused, 1). */
#define zp_tally(netns, counter, number)                                                                     \
	do {                                                                                                 \
		struct zp_podstat *stat_ = zp_stat_of(netns);                                                \
		if (stat_)                                                                                   \
			__sync_fetch_and_add(&stat_->counter, number);                                       \
	} while (0)

static __always_inline void zp_count_many(u32 reason, u64 number)
{
	u64 *count = zp_stats.lookup(&reason);

	if (count)
		*count += number;
}

static __always_inline void zp_count(u32 reason)
{
	zp_count_many(reason, 1);
}

#endif
