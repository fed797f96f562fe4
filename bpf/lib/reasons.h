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
	ZP_NO_LISTENER = 13,   /* inbound refused: the plaintext listener is gone */
	ZP_ASSIGN_ERROR = 14,  /* inbound refused: the listener cannot take this socket */
	ZP_MALFORMED = 15,     /* inbound dropped: TCP to a pod whose header cannot be read */
	ZP_MAP_FULL = 16,      /* an entry could not be written */
	ZP_INBOUND_PROBE = 17, /* inbound passed: kubelet's, or from an address that probes come from */
	ZP_DNS_CAPTURED = 18,  /* a query goes to the DNS listener */
	ZP_DNS_RESTORED = 19,  /* an answer shows the resolver that was asked */
	ZP_DNS_UNKNOWN = 20,   /* an answer came from an alias that stands for nobody any more */
	ZP_DNS_REFUSED = 21,   /* a query that could not be given an alias */
	ZP_UDP_CLEAR = 22,     /* UDP packets that left in the clear */
	ZP_UDP_BLOCKED = 23,   /* UDP packets that were not let out */
	ZP_CLEAR_BLOCKED = 24, /* a TCP SYN that came past connect() and was not let out: a raw socket */
	ZP_FORWARDED = 25,     /* a TCP SYN without a socket left the pod: it routes for somebody */
	ZP_FAIL_OPEN_OUT = 26, /* outbound passed in the clear: no daemon, and the pod is to fail open */
	ZP_FAIL_OPEN_IN = 27,  /* inbound, likewise */
	ZP_PORTS_SCARCE = 28,  /* a connect() with more than nine tenths of the pod's source ports in use */
	ZP_BEGUN_BEFORE = 29,  /* a TCP SYN in the clear, of a connect() from before enrolment */
	ZP_ALIAS_BLOCKED = 30, /* packets to a resolver's alias that were not let out: it is not local now */
	ZP_REASONS = 31,
};

#endif
