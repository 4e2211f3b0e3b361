// Package client is the public Go SDK of NovaCron: it speaks /api/v1 to one or
// several servers of a cluster. It imports package api, the standard library and
// one WebSocket library, so that any Go program can use it.
//
//	c, err := client.New(client.Config{
//		Addresses:   []string{"cloud.example:8443"},
//		Fingerprint: "4F:…",
//		Token:       os.Getenv("NOVACRON_TOKEN"),
//	})
//	change, err := c.VMs.Start(ctx, "web")
//	job, err := c.WaitChange(ctx, change, nil)
//
// # Trust
//
// A cluster signs its servers' certificates itself. A client trusts it by the
// cluster's certificate (Config.CA) or by a SHA-256 fingerprint of any
// certificate the server shows (Config.Fingerprint); with neither, the
// machine's roots decide. Over the UNIX socket of a server on the same machine
// the kernel says who is asking, and no token is needed.
//
// # What is tried again
//
// Reads, and creations (each carries an Idempotency-Key), are repeated when the
// connection breaks or the server answers 503; any request is repeated when it
// never left this machine, or when the server answered 429. With several
// addresses the next one is asked. All of that ends after Config.RetryFor; then
// the last error is returned.
//
// # Errors
//
// Every failure of a call is an *api.Error (use errors.As), whether a server
// said it or none could be reached; Code is the stable word to branch on. The
// codes this package adds are CodeUnreachable, CodeUntrusted and CodeBadAnswer.
//
// A Client is safe for concurrent use.
package client
