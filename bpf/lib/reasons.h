/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Why a program decided as it did: the index into zp_stats. Numbers are NEVER reused; new ones go at the end,
 * before ZP_REASONS. zproxy/steering/layout.py has the names in the same order.
 */
#ifndef ZP_REASONS_H
#define ZP_REASONS_H

enum zp_reason {
	ZP_CAPTURED_V4 = 0,
	ZP_CAPTURED_V6 = 1,
	ZP_EXEMPT_SELF = 2, /* a socket of the proxy */
	ZP_EXEMPT_LOOPBACK = 3,
	ZP_EXEMPT_OWN_IP = 4,	   /* the pod's own address */
	ZP_EXEMPT_UNSPECIFIED = 5, /* 0.0.0.0, ::, which mean this host */
	ZP_EXEMPT_MULTICAST = 6,   /* and broadcast; TCP refuses both by itself */
	ZP_EXEMPT_PROBE = 7,
	ZP_REFUSED_NO_FAMILY = 8, /* the pod has no address of the destination's family */
	ZP_HANDED_OVER = 9,	  /* the proxy's accepted socket got its original destination */
	ZP_HANDOVER_MISSING = 10, /* someone dialled the outbound port directly, or the entry was evicted */
	ZP_INBOUND_RECORDED = 11,
	ZP_INBOUND_ASSIGNED = 12,
	ZP_NO_LISTENER = 13,  /* inbound refused: the plaintext listener is gone */
	ZP_ASSIGN_ERROR = 14, /* inbound refused: the listener cannot take this socket */
	ZP_MALFORMED = 15,    /* inbound dropped: TCP to a pod whose header cannot be read */
	ZP_MAP_FULL = 16,     /* an entry could not be written */
	ZP_REASONS = 17,
};

#endif
