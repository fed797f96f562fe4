// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Outbound, at the pod's interfaces: UDP that leaves in the clear is recorded, or dropped where the pod's
 * policy says so, and TCP that begins without having been steered is dropped. So is what is for an alias.
 *
 * What is for the pod itself travels over lo and is not seen. What the proxy sends passes by its sockets'
 * storage. Nearly every packet is TCP of a connection that stands: it is let go after one look at its header,
 * without a call.
 *
 * Whose packet it is: a socket knows its namespace, and no source address deceives it. Kernels before 6.13
 * cannot say so here; there the source address decides, and one that no pod has is not let out when a socket
 * of the pod sent it. A packet without a socket is forwarded for somebody behind the pod. The program runs at
 * no other interfaces than pods', so a packet that is in doubt is a pod's in any case.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/dns.h"
#include "lib/heart.h"
#include "lib/maps.h"
#include "lib/packet.h"

#define ZP_PORT_DHCP_SERVER  67
#define ZP_PORT_DHCP_CLIENT  68
#define ZP_PORT_DHCP6_CLIENT 546
#define ZP_PORT_DHCP6_SERVER 547

/* Who sent a packet. */
struct zp_sender {
	u64 netns; /* 0: nobody can say */
	struct zp_pod *pod;
	u32 has_socket;
};

/* Ethernet, IP without options, TCP up to its flags. */
struct zp_frame4 {
	u8 mac[12];
	__be16 type;
	struct zp_header4 ip;
	struct zp_header_tcp tcp;
} __attribute__((packed));

struct zp_frame6 {
	u8 mac[12];
	__be16 type;
	struct zp_header6 ip;
	struct zp_header_tcp tcp;
} __attribute__((packed));

static __always_inline int zp_begins(u8 flags)
{
	return (flags & (ZP_TCP_SYN | ZP_TCP_ACK)) == ZP_TCP_SYN;
}

/* Recognise the common case, by no more than the frame's first bytes. What it misses is parsed. */
static __always_inline int zp_is_under_way(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct zp_frame4 *four = data;
	struct zp_frame6 *six = data;

	if ((void *)(four + 1) > end)
		return 0;
	if (four->type == zp_htons(ZP_ETH_P_IP))
		return four->ip.version_ihl == 0x45 && four->ip.protocol == ZP_TCP &&
		       !(four->ip.fragment & zp_htons(0x3fff)) && !zp_begins(four->tcp.flags);
	if (four->type != zp_htons(ZP_ETH_P_IPV6) || (void *)(six + 1) > end)
		return 0;
	return six->ip.next == ZP_TCP && !zp_begins(six->tcp.flags);
}

static __always_inline int zp_is_the_proxys(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk && zp_exempt.sk_storage_get(sk, 0, 0);
}

static __always_inline u64 zp_netns_of(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_podip *found;
	struct zp_ip src;

#ifdef ZP_HAS_TC_COOKIE
	if (skb->sk)
		return bpf_get_netns_cookie(skb);
#endif
	zp_copy_ip(src.ip, packet->flow.src_ip);
	found = zp_podip.lookup(&src);
	return found ? found->netns : 0;
}

/* Find who sent the packet. Return 0 when it is nobody's who is to be watched: a pod that is not switched on
 * (yet, or any more).
 */
static __always_inline int zp_find_sender(struct __sk_buff *skb, struct zp_packet *packet,
					  struct zp_sender *sender)
{
	sender->has_socket = skb->sk ? 1 : 0;
	sender->netns = zp_netns_of(skb, packet);
	if (!sender->netns)
		return 1;
	sender->pod = zp_pods.lookup(&sender->netns);
	return sender->pod && !zp_is_abandoned(sender->pod);
}

static __always_inline int zp_is_dialling(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->type == ZP_SOCK_STREAM && sk->protocol == ZP_TCP && sk->state == BPF_TCP_SYN_SENT;
}

/* Whether the SYN is of a connect() that began before the pod was switched on. User space has noted those
 * whose SYN was out. One that had passed the hook and not come to its SYN can be told by time alone: while
 * the programs hang at the root, no other TCP socket gets here, and the flow is noted for its repetitions.
 */
static __always_inline int zp_has_begun(struct __sk_buff *skb, struct zp_packet *packet,
					struct zp_sender *sender)
{
	struct zp_tuple_key key = {.netns = sender->netns, .flow = packet->flow};
	u64 now = bpf_ktime_get_ns();

	if (!sender->pod || !zp_is_dialling(skb))
		return 0;
	if (zp_begun.lookup(&key))
		return 1;
	if (now - sender->pod->since_ns > ZP_BEGINNING_NS)
		return 0;
	zp_begun.update(&key, &now);
	return 1;
}

/* A SYN that did not come from the proxy, or something that could be one. An app's connect() leads to its own
 * pod, over lo; this came past it: from a raw or packet socket.
 */
static __always_inline int zp_guard(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_sender sender = {};

	if (!zp_find_sender(skb, packet, &sender))
		return ZP_TC_NEXT;
	if (!sender.has_socket) {
		zp_count(ZP_FORWARDED);
		return ZP_TC_NEXT;
	}
	if (zp_begins(packet->flags) && zp_has_begun(skb, packet, &sender)) {
		zp_count(ZP_BEGUN_BEFORE);
		return ZP_TC_NEXT;
	}
	zp_count(ZP_CLEAR_BLOCKED);
	zp_tally(sender.netns, refused, 1);
	return ZP_TC_SHOT;
}

static __always_inline int zp_judge_tcp(struct __sk_buff *skb, struct zp_packet *packet)
{
	if (zp_parse_tcp(skb, packet))
		return zp_guard(skb, packet);
	if (!zp_begins(packet->flags))
		return ZP_TC_NEXT;
	if (packet->is_ip4 ? zp_exempt4(packet->flow.dst_ip) : zp_exempt6(packet->flow.dst_ip))
		return ZP_TC_NEXT;
	return zp_guard(skb, packet);
}

/* A lease that cannot be renewed takes the pod off the network, and DHCP reaches nobody but its server. */
static __always_inline int zp_is_dhcp(struct zp_packet *packet)
{
	u16 from = packet->flow.src_port, to = packet->flow.dst_port;

	if (packet->is_ip4)
		return from == ZP_PORT_DHCP_CLIENT && to == ZP_PORT_DHCP_SERVER;
	return from == ZP_PORT_DHCP6_CLIENT && to == ZP_PORT_DHCP6_SERVER;
}

/* A source that leaves no link: of DHCP's first packets, and of IPv6's neighbourhood. */
static __always_inline int zp_is_unrouted(struct zp_packet *packet)
{
	const u8 *src = packet->flow.src_ip;

	if (packet->is_ip4)
		return !zp_word(src, 3) || (src[12] == 169 && src[13] == 254);
	return (!zp_word(src, 0) && !zp_word(src, 1) && !zp_word(src, 2) && !zp_word(src, 3)) ||
	       (src[0] == 0xfe && (src[1] & 0xc0) == 0x80);
}

/* Packets of this buffer on the wire, which the interface may be left to cut (UDP_SEGMENT). */
static __always_inline u64 zp_packets(struct __sk_buff *skb)
{
	return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

static __always_inline u64 zp_bytes(struct __sk_buff *skb, struct zp_packet *packet)
{
	return packet->length + (zp_packets(skb) - 1) * (packet->at + sizeof(struct zp_header_udp));
}

/* The answers of a server go to another port each time, so its own port stands for them. */
static __always_inline void zp_key_of(struct zp_packet *packet, struct zp_udp_key *key)
{
	u16 from = packet->flow.src_port, to = packet->flow.dst_port;

	zp_copy_ip(key->dst_ip, packet->flow.dst_ip);
	if (from && from < ZP_EPHEMERAL && to >= ZP_EPHEMERAL)
		key->src_port = from;
	else
		key->dst_port = to;
}

static __always_inline struct zp_udp *zp_udp_entry(struct zp_udp_key *key, u64 now)
{
	struct zp_udp *found = zp_udp.lookup(key);
	struct zp_udp fresh = {.first_ns = now};

	if (found)
		return found;
	zp_udp.insert(key, &fresh); /* another CPU may have been first */
	return zp_udp.lookup(key);
}

static __always_inline void zp_record_udp(struct __sk_buff *skb, struct zp_packet *packet, u64 netns,
					  int is_blocked)
{
	u64 packets = zp_packets(skb), bytes = zp_bytes(skb, packet), now = bpf_ktime_get_ns();
	struct zp_udp_key key = {.netns = netns};
	struct zp_podstat *stat = zp_stat_of(netns);
	struct zp_udp *entry;

	zp_key_of(packet, &key);
	entry = zp_udp_entry(&key, now);
	if (entry) {
		__sync_fetch_and_add(&entry->packets, packets);
		__sync_fetch_and_add(&entry->bytes, bytes);
		if (is_blocked)
			__sync_fetch_and_add(&entry->blocked, packets);
		entry->last_ns = now;
	} else {
		zp_count(ZP_MAP_FULL);
	}
	if (stat) {
		__sync_fetch_and_add(&stat->udp_packets, packets);
		__sync_fetch_and_add(&stat->udp_bytes, bytes);
		if (is_blocked)
			__sync_fetch_and_add(&stat->udp_blocked, packets);
	}
	zp_count_many(is_blocked ? ZP_UDP_BLOCKED : ZP_UDP_CLEAR, packets);
}

/* Of whom nobody can say: forwarded for somebody behind the pod, or (before Linux 6.13) sent by the pod under
 * an address that is not its own.
 */
static __always_inline int zp_judge_stranger(struct __sk_buff *skb, struct zp_packet *packet,
					     struct zp_sender *sender)
{
	if (sender->has_socket && !zp_is_unrouted(packet)) {
		zp_count_many(ZP_UDP_BLOCKED, zp_packets(skb));
		return ZP_TC_SHOT;
	}
	zp_count_many(ZP_UDP_CLEAR, zp_packets(skb));
	return ZP_TC_NEXT;
}

static __always_inline int zp_judge_udp(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_sender sender = {};
	int is_blocked;

	if (packet->flow.dst_port == ZP_DNS_PORT)
		return ZP_TC_NEXT;
	if (!zp_find_sender(skb, packet, &sender))
		return ZP_TC_NEXT;
	if (!sender.pod)
		return zp_judge_stranger(skb, packet, &sender);
	is_blocked = (sender.pod->flags & ZP_POD_UDP_BLOCK) && !zp_is_dhcp(packet);
	zp_record_udp(skb, packet, sender.netns, is_blocked);
	return is_blocked ? ZP_TC_SHOT : ZP_TC_NEXT;
}

/* An alias is local to its pod. What goes out to one is a query whose route was taken away, or of a socket
 * from before the pod's DNS was left alone: it would reach nobody, and tell everybody on its way.
 */
static __always_inline int zp_block_alias(struct __sk_buff *skb)
{
	zp_count_many(ZP_ALIAS_BLOCKED, zp_packets(skb));
	return ZP_TC_SHOT;
}

int zp_egress(struct __sk_buff *skb)
{
	struct zp_packet packet = {};
	int kind;

	if (zp_is_under_way(skb))
		return ZP_TC_NEXT;
	kind = zp_parse(skb, &packet, ZP_UDP);
	if (kind == ZP_IS_OTHER)
		return ZP_TC_NEXT;
	if (zp_is_alias(packet.flow.dst_ip))
		return zp_block_alias(skb);
	if (zp_is_the_proxys(skb))
		return ZP_TC_NEXT;
	if (kind == ZP_IS_TCP)
		return zp_judge_tcp(skb, &packet);
	if (kind == ZP_UNREADABLE)
		return zp_guard(skb, &packet);
	if (kind == ZP_IS_UDP)
		zp_parse_udp(skb, &packet); /* a cut-off one has no ports, and is judged by none */
	return zp_judge_udp(skb, &packet);
}
