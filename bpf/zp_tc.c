// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Inbound, first half: note every TCP flow that reaches the pod from outside and has no socket yet, so that
 * the socket lookup a moment later hands it to the plaintext listener. HBONE's port passes.
 *
 * The work is split because neither hook can do it alone. The lookup hook also sees what travels over lo (the
 * app calling itself, the proxy calling the app) and cannot tell it apart; tc on eth0 never sees lo. tc could
 * assign the socket itself, but not on the path of a SYN that meets TIME_WAIT, which finds the app's own
 * listener: a client that reuses its source port would reach the app in the clear.
 *
 * "No socket" is asked for every packet and not only for SYNs, because the ACK that completes a SYN cookie
 * has no socket either.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"

#define ZP_TC_NEXT -1 /* TC_ACT_UNSPEC and TCX_NEXT: whoever comes after us decides */
#define ZP_TC_SHOT 2  /* TC_ACT_SHOT and TCX_DROP */

#define ZP_ETH_P_IP    0x0800
#define ZP_ETH_P_IPV6  0x86dd
#define ZP_PACKET_HOST 0

#define ZP_TCP_TIME_WAIT 6
#define ZP_TCP_LISTEN	 10

#define ZP_TCP_SYN 0x02
#define ZP_TCP_ACK 0x10

#define ZP_HOP_BY_HOP  0
#define ZP_ROUTING     43
#define ZP_FRAGMENT    44
#define ZP_AUTH	       51
#define ZP_DESTINATION 60
#define ZP_MAX_HEADERS 8

/* Result of parsing. */
#define ZP_IS_TCP     0
#define ZP_IS_OTHER   1 /* not TCP, or a later fragment, which is judged by the first */
#define ZP_UNREADABLE 2

struct zp_header4 {
	u8 version_ihl;
	u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 protocol;
	__be16 checksum;
	__be32 src;
	__be32 dst;
};

struct zp_header6 {
	__be32 version_class_flow;
	__be16 length;
	u8 next;
	u8 hops;
	__be32 src[4];
	__be32 dst[4];
};

struct zp_header_tcp {
	__be16 src;
	__be16 dst;
	__be32 sequence;
	__be32 acknowledged;
	u8 offset;
	u8 flags;
};

struct zp_packet {
	struct zp_flow flow;
	u32 at; /* where the TCP header begins, from the network header */
	u8 flags;
	u8 is_ip4;
	u16 pad;
};

static __always_inline int zp_load(struct __sk_buff *skb, u32 at, void *to, u32 size)
{
	return bpf_skb_load_bytes_relative(skb, at, to, size, BPF_HDR_START_NET);
}

static __always_inline int zp_parse4(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_header4 header;

	if (zp_load(skb, 0, &header, sizeof(header)))
		return ZP_UNREADABLE;
	if (header.protocol != ZP_TCP || header.fragment & zp_htons(0x1fff))
		return ZP_IS_OTHER;
	packet->is_ip4 = 1;
	packet->at = (header.version_ihl & 0x0f) * 4;
	zp_set_ip4(packet->flow.src_ip, header.src);
	zp_set_ip4(packet->flow.dst_ip, header.dst);
	return ZP_IS_TCP;
}

/* Walk the extension headers to TCP: skipping a packet because of one would be a way past the proxy. */
static __always_inline int zp_skip_headers(struct __sk_buff *skb, struct zp_packet *packet, u8 next)
{
	u8 header[4];
	int i;

	for (i = 0; i < ZP_MAX_HEADERS; i++) {
		if (next == ZP_TCP)
			return ZP_IS_TCP;
		if (next != ZP_HOP_BY_HOP && next != ZP_ROUTING && next != ZP_FRAGMENT && next != ZP_AUTH &&
		    next != ZP_DESTINATION)
			return ZP_IS_OTHER;
		if (zp_load(skb, packet->at, header, sizeof(header)))
			return ZP_UNREADABLE;
		if (next == ZP_FRAGMENT) {
			if (header[2] || header[3] & 0xf8)
				return ZP_IS_OTHER;
			packet->at += 8;
		} else if (next == ZP_AUTH) {
			packet->at += (header[1] + 2) * 4;
		} else {
			packet->at += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	return ZP_UNREADABLE;
}

static __always_inline int zp_parse6(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_header6 header;

	if (zp_load(skb, 0, &header, sizeof(header)))
		return ZP_UNREADABLE;
	packet->at = sizeof(header);
	zp_copy_ip(packet->flow.src_ip, (u8 *)header.src);
	zp_copy_ip(packet->flow.dst_ip, (u8 *)header.dst);
	return zp_skip_headers(skb, packet, header.next);
}

static __always_inline int zp_parse_tcp(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_header_tcp header;

	if (zp_load(skb, packet->at, &header, sizeof(header)))
		return ZP_UNREADABLE;
	packet->flow.src_port = zp_ntohs(header.src);
	packet->flow.dst_port = zp_ntohs(header.dst);
	packet->flags = header.flags;
	return ZP_IS_TCP;
}

static __always_inline struct bpf_sock *zp_find_socket(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct bpf_sock_tuple tuple = {};

	if (packet->is_ip4) {
		tuple.ipv4.saddr = zp_word(packet->flow.src_ip, 3);
		tuple.ipv4.daddr = zp_word(packet->flow.dst_ip, 3);
		tuple.ipv4.sport = zp_htons(packet->flow.src_port);
		tuple.ipv4.dport = zp_htons(packet->flow.dst_port);
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	zp_copy_ip((u8 *)tuple.ipv6.saddr, packet->flow.src_ip);
	zp_copy_ip((u8 *)tuple.ipv6.daddr, packet->flow.dst_ip);
	tuple.ipv6.sport = zp_htons(packet->flow.src_port);
	tuple.ipv6.dport = zp_htons(packet->flow.dst_port);
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* A listener is not yet a connection, and a SYN opens a new one over a TIME_WAIT. */
static __always_inline int zp_has_connection(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct bpf_sock *sk = zp_find_socket(skb, packet);
	u32 state;

	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	if (state == ZP_TCP_TIME_WAIT)
		return (packet->flags & (ZP_TCP_SYN | ZP_TCP_ACK)) != ZP_TCP_SYN;
	return state != ZP_TCP_LISTEN;
}

static __always_inline int zp_record(struct zp_podip *pod, struct zp_packet *packet)
{
	u64 netns = pod->netns;
	u32 slot = pod->slot;
	struct zp_flow flow = packet->flow;

	if (!zp_pods.lookup(&netns))
		return ZP_TC_NEXT;
	if (zp_in.update(&flow, &slot)) {
		zp_count(ZP_MAP_FULL);
		return ZP_TC_SHOT;
	}
	zp_count(ZP_INBOUND_RECORDED);
	return ZP_TC_NEXT;
}

/* TCP to the interface's own link-local address, which names no pod: two pods may have the same one. Noted
 * with a slot that no listener has, it is reset; let through, it would reach the app in the clear.
 */
static __always_inline int zp_record_link_local(struct zp_packet *packet)
{
	struct zp_flow flow = packet->flow;
	u32 slot = ZP_MAX_PODS;

	if (zp_in.update(&flow, &slot)) {
		zp_count(ZP_MAP_FULL);
		return ZP_TC_SHOT;
	}
	return ZP_TC_NEXT;
}

static __always_inline int zp_is_link_local(struct zp_packet *packet)
{
	return packet->flow.dst_ip[0] == 0xfe && (packet->flow.dst_ip[1] & 0xc0) == 0x80;
}

static __always_inline int __tc_steer_in(struct __sk_buff *skb, struct zp_packet *packet, int parsed)
{
	struct zp_podip *pod;
	struct zp_ip dst;

	if (parsed == ZP_IS_OTHER)
		return ZP_TC_NEXT;
	zp_copy_ip(dst.ip, packet->flow.dst_ip);
	pod = zp_podip.lookup(&dst);
	if (!pod && !zp_is_link_local(packet))
		return ZP_TC_NEXT;
	if (parsed == ZP_UNREADABLE || zp_parse_tcp(skb, packet)) {
		/* A first fragment too short for its TCP header would come together behind our back. */
		zp_count(ZP_MALFORMED);
		return ZP_TC_SHOT;
	}
	if (!pod)
		return zp_has_connection(skb, packet) ? ZP_TC_NEXT : zp_record_link_local(packet);
	if (packet->flow.dst_port == pod->hbone_port || zp_has_connection(skb, packet))
		return ZP_TC_NEXT;
	return zp_record(pod, packet);
}

int zp_ingress(struct __sk_buff *skb)
{
	struct zp_packet packet = {};
	int parsed;

	/* The stack drops what is addressed to another host; a record of it would be left behind. */
	if (skb->pkt_type != ZP_PACKET_HOST)
		return ZP_TC_NEXT;
	if (skb->protocol == zp_htons(ZP_ETH_P_IP))
		parsed = zp_parse4(skb, &packet);
	else if (skb->protocol == zp_htons(ZP_ETH_P_IPV6))
		parsed = zp_parse6(skb, &packet);
	else
		return ZP_TC_NEXT;
	return __tc_steer_in(skb, &packet, parsed);
}
