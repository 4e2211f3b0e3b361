// Package control holds the use-cases: what each request does, in one
// transaction each. It knows no HTTP and no host.
//
// A change that takes time is one transaction that records intent, job, audit
// record and event, and starts the workflow; the answer is the job. Decisions
// (vm.Decide, scheduler.Place) are pure and made inside the transaction that
// writes. Package flows does the work, package tasks repairs what no request
// asked for; both see a node only through nodelink.
//
// Every server has one Service. It keeps no truth: liveness of nodes is this
// server's own judgement of lease numbers that are in the database, tickets and
// sessions live and die with the process.
package control
