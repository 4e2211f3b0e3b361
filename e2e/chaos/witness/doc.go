// Command witness is what the guests of package chaos run. It counts, twenty times a
// second: each number is on its disk before it is told, in one datagram and over one TCP
// connection. At its start it goes on from the highest number on its disk, under a new
// name, so that who listens sees two copies of it, a copy that woke up late, and a write
// that was lost. It also changes memory and reads memory and disk back all the time, and
// tells how often they were not what it had written.
package main
