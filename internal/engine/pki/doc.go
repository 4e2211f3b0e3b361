// Package pki is the cluster's own certificate authority: who may speak on the
// node link, and how both sides prove it.
//
// One ECDSA P-256 root per cluster is made at first start. Its key lives in the
// database, sealed (AES-256-GCM) under a key-encryption key that never enters
// the database, so that every server can sign and a database dump cannot.
// Servers hold short certificates made at their start; nodes get certificates
// of at most 7 days whose URI SAN is the node's id. People's browsers meet the
// same authority's certificate until an operator configures a public one;
// agents always meet this one, by ALPN.
//
// Validity is the only place where wall time decides something, because X.509
// knows nothing else; certificates are dated back by an hour for clocks that
// differ. An expired node certificate never stops a VM, and is good for one
// thing: to be renewed, with the key it was made for. Agents renew at two thirds
// of a certificate's life. What makes a node's certificate worthless for ever is
// not its date but the node's removal, which the database knows.
package pki
