// Command pulse is what the guests of the benchmarks of migrations run. It fills so much
// memory with what does not compress and is not twice the same, and then counts, in
// datagrams as far apart as it is told: who listens sees for how long the guest was
// silent. At its start it takes a name, so that who listens also sees that it is the
// same one that goes on.
package main
