/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Packets at the pod's interfaces, read up to TCP's or UDP's header. With and without an Ethernet header. */
#ifndef ZP_PACKET_H
#define ZP_PACKET_H

#include "abi.h"
#include "addr.h"
#include "types.h"

#define ZP_TC_NEXT -1 /* TC_ACT_UNSPEC and TCX_NEXT: whoever comes after us decides */
#define ZP_TC_SHOT 2  /* TC_ACT_SHOT and TCX_DROP */

#define ZP_ETH_P_IP   0x0800
#define ZP_ETH_P_IPV6 0x86dd

#define ZP_TCP_SYN 0x02
#define ZP_TCP_ACK 0x10

#define ZP_HOP_BY_HOP  0
#define ZP_ROUTING     43
#define ZP_FRAGMENT    44
#define ZP_AUTH	       51
#define ZP_DESTINATION 60
#define ZP_MAX_HEADERS 8

/* Result of parsing. UDP is told apart for those who ask; it is ZP_IS_OTHER for the rest. */
#define ZP_IS_TCP	0
#define ZP_IS_OTHER	1 /* another protocol, or a later fragment of TCP, which is judged by the first */
#define ZP_UNREADABLE	2
#define ZP_IS_UDP	3
#define ZP_IS_UDP_LATER 4 /* a later fragment: data without ports */

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

struct zp_header_udp {
	__be16 src;
	__be16 dst;
	__be16 length;
	__be16 checksum;
};

struct zp_packet {
	struct zp_flow flow;
	u32 at;	    /* where TCP's or UDP's header begins, from the network header */
	u32 length; /* of the IP packet, as its header has it */
	u8 flags;
	u8 is_ip4;
	u16 pad;
};

static __always_inline int zp_load(struct __sk_buff *skb, u32 at, void *to, u32 size)
{
	return bpf_skb_load_bytes_relative(skb, at, to, size, BPF_HDR_START_NET);
}

/* Which result a transport protocol is; `also` is a constant, so that who asks for TCP alone pays for no
 * more.
 */
static __always_inline int zp_kind_of(u8 protocol, u8 also)
{
	if (protocol == ZP_TCP)
		return ZP_IS_TCP;
	return also && protocol == also ? ZP_IS_UDP : ZP_IS_OTHER;
}

/* TCP never needs later fragments to be judged; UDP's carry an app's bytes in the clear. */
static __always_inline int zp_kind_of_later(int kind)
{
	return kind == ZP_IS_UDP ? ZP_IS_UDP_LATER : ZP_IS_OTHER;
}

static __always_inline int zp_parse4(struct __sk_buff *skb, struct zp_packet *packet, u8 also)
{
	struct zp_header4 header;
	int kind;

	if (zp_load(skb, 0, &header, sizeof(header)))
		return ZP_UNREADABLE;
	kind = zp_kind_of(header.protocol, also);
	if (header.fragment & zp_htons(0x1fff))
		kind = zp_kind_of_later(kind);
	if (kind == ZP_IS_OTHER)
		return kind;
	packet->is_ip4 = 1;
	packet->at = (header.version_ihl & 0x0f) * 4;
	packet->length = zp_ntohs(header.length);
	zp_set_ip4(packet->flow.src_ip, header.src);
	zp_set_ip4(packet->flow.dst_ip, header.dst);
	return kind;
}

static __always_inline int zp_is_extension(u8 next)
{
	return next == ZP_HOP_BY_HOP || next == ZP_ROUTING || next == ZP_FRAGMENT || next == ZP_AUTH ||
	       next == ZP_DESTINATION;
}

/* Walk the extension headers to TCP or UDP: skipping a packet because of one would be a way past the proxy.
 */
static __always_inline int zp_skip_headers(struct __sk_buff *skb, struct zp_packet *packet, u8 next, u8 also)
{
	u8 header[4];
	int i;

	for (i = 0; i < ZP_MAX_HEADERS; i++) {
		if (!zp_is_extension(next))
			return zp_kind_of(next, also);
		if (zp_load(skb, packet->at, header, sizeof(header)))
			return ZP_UNREADABLE;
		if (next == ZP_FRAGMENT) {
			if (header[2] || header[3] & 0xf8) {
				/* With more extension headers in between, the rest may be UDP's as well. */
				if (also && zp_is_extension(header[0]))
					return ZP_IS_UDP_LATER;
				return zp_kind_of_later(zp_kind_of(header[0], also));
			}
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

static __always_inline int zp_parse6(struct __sk_buff *skb, struct zp_packet *packet, u8 also)
{
	struct zp_header6 header;

	if (zp_load(skb, 0, &header, sizeof(header)))
		return ZP_UNREADABLE;
	packet->at = sizeof(header);
	packet->length = sizeof(header) + zp_ntohs(header.length);
	zp_copy_ip(packet->flow.src_ip, (u8 *)header.src);
	zp_copy_ip(packet->flow.dst_ip, (u8 *)header.dst);
	return zp_skip_headers(skb, packet, header.next, also);
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

static __always_inline int zp_parse_udp(struct __sk_buff *skb, struct zp_packet *packet)
{
	struct zp_header_udp header;

	if (zp_load(skb, packet->at, &header, sizeof(header)))
		return ZP_UNREADABLE;
	packet->flow.src_port = zp_ntohs(header.src);
	packet->flow.dst_port = zp_ntohs(header.dst);
	return ZP_IS_UDP;
}

/* Parse up to the transport header, TCP's or that of `also` (ZP_UDP, or 0 for none); ZP_IS_OTHER for what is
 * not IP either.
 */
static __always_inline int zp_parse(struct __sk_buff *skb, struct zp_packet *packet, u8 also)
{
	if (skb->protocol == zp_htons(ZP_ETH_P_IP))
		return zp_parse4(skb, packet, also);
	if (skb->protocol == zp_htons(ZP_ETH_P_IPV6))
		return zp_parse6(skb, packet, also);
	return ZP_IS_OTHER;
}

#endif
