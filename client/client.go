package client

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/novacron/novacron/api"
)

// Config says which cluster to talk to, and as whom.
type Config struct {
	// Addresses of servers, host:port. They are asked in turn when one is away.
	Addresses []string
	// Socket is the UNIX socket of a server on this machine; with it, Addresses and
	// what concerns trust are not used.
	Socket string
	// CA is the cluster's certificate, PEM.
	CA []byte
	// Fingerprint is the SHA-256 of a certificate the server shows, its own or its
	// cluster's, in hexadecimal digits with or without colons.
	Fingerprint string
	// Token is an API token.
	Token string
	// UserAgent names the program; "novacron-go" if empty.
	UserAgent string
	// RetryFor bounds how long one call is tried again: 15 seconds if 0, never if
	// negative.
	RetryFor time.Duration
}

// retryFor is the default of Config.RetryFor.
const retryFor = 15 * time.Second

// Client talks to one cluster.
type Client struct {
	// VMs are the virtual machines.
	VMs VMs
	// Images are what VMs are made from.
	Images Images
	// Nodes are the hosts.
	Nodes Nodes
	// Jobs are the changes under way, and their record.
	Jobs Jobs
	// StoragePools are places for disks that several nodes have.
	StoragePools StoragePools
	// Migrations are the records of VMs' ways from node to node.
	Migrations Migrations
	// Tokens are the API tokens.
	Tokens Tokens
	// Audit is the record of attempts at changes.
	Audit Audit

	cfg   Config
	bases []string
	// current is the index of the base that answered last.
	current atomic.Int64
	http    *http.Client
}

// New makes a client. Nothing is dialled yet.
func New(cfg Config) (*Client, error) {
	transport, bases, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "novacron-go"
	}
	if cfg.RetryFor == 0 {
		cfg.RetryFor = retryFor
	}
	c := &Client{cfg: cfg, bases: bases, http: &http.Client{
		Transport: transport,
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.VMs, c.Images, c.Nodes = VMs{c}, Images{c}, Nodes{c}
	c.Jobs, c.Migrations, c.Tokens, c.Audit, c.StoragePools = Jobs{c}, Migrations{c}, Tokens{c}, Audit{c}, StoragePools{c}
	return c, nil
}

// Close drops idle connections. Streams that are open stay.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// System tells which cluster, server and version this is, and who is asking.
func (c *Client) System(ctx context.Context) (api.System, error) {
	return get[api.System](ctx, c, "/system")
}

// CA gives the cluster's root certificate.
func (c *Client) CA(ctx context.Context) (api.CA, error) {
	return get[api.CA](ctx, c, "/ca")
}

// Setup spends the one-time setup token for a first administrator's token.
func (c *Client) Setup(ctx context.Context, req api.Setup) (api.Token, error) {
	return create[api.Token](ctx, c, "/setup", req)
}

// Tasks lists the reconcilers of the server that answers.
func (c *Client) Tasks(ctx context.Context) ([]api.Task, error) {
	page, err := get[api.List[api.Task]](ctx, c, "/debug/tasks")
	return page.Items, err
}

// The codes this package adds to the server's.
const (
	// CodeUnreachable: no server could be reached, or the connection broke.
	CodeUnreachable = "server_unreachable"
	// CodeUntrusted: the server is not the one the configuration trusts.
	CodeUntrusted = "server_untrusted"
	// CodeBadAnswer: what answered does not speak this API.
	CodeBadAnswer = "bad_answer"
	// CodeInterrupted: the caller's context ended.
	CodeInterrupted = "interrupted"
	// CodeInvalidConfig: the client's configuration is of no use.
	CodeInvalidConfig = "invalid_config"
)

// failure is an api.Error of this side, with its cause.
type failure struct {
	public *api.Error
	cause  error
}

func fail(code, detail string, cause error) error {
	return &failure{cause: cause, public: &api.Error{
		Title: "the request was not answered", Detail: detail, Code: code, Retryable: code == CodeUnreachable,
	}}
}

// Error implements error.
func (f *failure) Error() string {
	if f.cause == nil {
		return f.public.Detail
	}
	return f.public.Detail + ": " + f.cause.Error()
}

// Unwrap gives the api.Error and the cause.
func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.public}
	}
	return []error{f.public, f.cause}
}

// CodeOf gives the code of an error of this package or of a server; empty for
// any other error.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code
	}
	return ""
}
