package admit

import (
	"sync"
	"time"
)

// Buckets is a token bucket per key. It is safe for concurrent use.
type Buckets[K comparable] struct {
	// every is the time in which one token comes back.
	every time.Duration
	burst int
	most  int

	mu sync.Mutex
	// full is when a key's bucket is full again; a key that is missing has a full one.
	full map[K]time.Duration
	// rest is the same for all keys that found no room.
	rest  time.Duration
	swept time.Duration
}

// sweepEvery is how often full buckets are looked for while there is no room.
const sweepEvery = time.Second

// NewBuckets makes buckets that hold burst tokens and get rate more per second; at
// most so many keys have one of their own.
func NewBuckets[K comparable](rate float64, burst, most int) *Buckets[K] {
	return &Buckets[K]{
		every: max(time.Duration(float64(time.Second)/rate), 1), burst: max(burst, 1), most: max(most, 1), full: map[K]time.Duration{},
	}
}

// Take takes a token from the key's bucket. When there is none, it tells how long
// until there is, and takes nothing. now only grows.
func (b *Buckets[K]) Take(key K, now time.Duration) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.place(key, now)
	if wait := b.lacks(*at.full, now); wait > 0 {
		return wait, false
	}
	*at.full = max(*at.full, now) + b.every
	if at.own {
		b.full[key] = *at.full
	}
	return 0, true
}

// Peek tells whether Take would give a token, and how long until it would.
func (b *Buckets[K]) Peek(key K, now time.Duration) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait = b.lacks(*b.place(key, now).full, now)
	return wait, wait == 0
}

// Len is how many keys have a bucket of their own.
func (b *Buckets[K]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.full)
}

// lacks is how long until a bucket has a token; 0 when it has.
func (b *Buckets[K]) lacks(full, now time.Duration) time.Duration {
	return max(full-now-time.Duration(b.burst-1)*b.every, 0)
}

// bucket is where a key's number stands.
type bucket struct {
	full *time.Duration
	own  bool
}

func (b *Buckets[K]) place(key K, now time.Duration) bucket {
	full, known := b.full[key]
	if !known && len(b.full) >= b.most && now-b.swept >= sweepEvery {
		b.swept = now
		for k, at := range b.full {
			if at <= now {
				delete(b.full, k)
			}
		}
	}
	if !known && len(b.full) >= b.most {
		return bucket{full: &b.rest}
	}
	return bucket{full: &full, own: true}
}
