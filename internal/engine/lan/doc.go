// Package lan announces servers on the local network and finds them, by multicast
// DNS service discovery (RFC 6762, RFC 6763) under _novacron._tcp.
//
// What it finds is a rumour: anybody on the network can announce anything. Whoever
// uses an address proves the server by what it knows already: an agent by its
// cluster's CA or its token's pin, a person by the fingerprint.
//
// A server announces the addresses at which it is reached from other machines; one
// that listens on loopback alone announces nothing. Interfaces are looked at again
// every half a minute, so that a cable that is plugged in later counts. Nothing is
// kept, and a network without multicast costs nothing but the discovery.
package lan
