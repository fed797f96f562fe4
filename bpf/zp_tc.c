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
#include "lib/heart.h"
#include "lib/maps.h"
#include "lib/packet.h"

#define ZP_PACKET_HOST 0

#define ZP_TCP_TIME_WAIT 6
#define ZP_TCP_LISTEN	 10

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

/* Whether the packet belongs to a connection that kubelet has begun, or comes from where probes come from.
 * The note stays until it is old: the ACK that completes a SYN cookie asks again.
 */
static __always_inline int zp_is_probe(struct zp_packet *packet)
{
	struct zp_flow flow = packet->flow;
	struct zp_ip src;
	u64 *begun = zp_probe.lookup(&flow);

	if (begun && bpf_ktime_get_ns() - *begun < ZP_PROBE_NS)
		return 1;
	zp_copy_ip(src.ip, packet->flow.src_ip);
	return zp_nodeip.lookup(&src) != 0;
}

static __always_inline int zp_record(struct zp_podip *pod, struct zp_packet *packet)
{
	u64 netns = pod->netns;
	u32 slot = pod->slot;
	struct zp_flow flow = packet->flow;
	struct zp_pod *entry;

	entry = zp_pods.lookup(&netns);
	if (!entry)
		return ZP_TC_NEXT;
	if (zp_is_abandoned(entry)) {
		zp_count(ZP_FAIL_OPEN_IN);
		return ZP_TC_NEXT;
	}
	if (zp_is_probe(packet)) {
		zp_count(ZP_INBOUND_PROBE);
		return ZP_TC_NEXT;
	}
	if (zp_in.update(&flow, &slot)) {
		zp_count(ZP_MAP_FULL);
		return ZP_TC_SHOT;
	}
	zp_count(ZP_INBOUND_RECORDED);
	zp_tally(netns, inbound, 1);
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

	/* The stack drops what is addressed to another host; a record of it would be left behind. */
	if (skb->pkt_type != ZP_PACKET_HOST)
		return ZP_TC_NEXT;
	return __tc_steer_in(skb, &packet, zp_parse(skb, &packet, 0));
}
