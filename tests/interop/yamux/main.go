// One end of a yamux session over standard input and output: `yamux accept|open COUNT SEED`.
//
// The opener of a stream sends a header (length, 4 octets big endian; pause in milliseconds, 2 octets), so many octets, and closes its half.
// The other end waits for the pause, reads to the end, and answers with the SHA-256 of what came, in octets, and with all of it again.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdio) Close() error                { os.Stdin.Close(); return os.Stdout.Close() }

// What happened to streams, for the other end's report.
type tally struct {
	sync.Mutex
	whole, broken, wrong int
}

func (t *tally) add(which *int) {
	t.Lock()
	defer t.Unlock()
	*which++
}

func accept(stream *yamux.Stream, t *tally) {
	defer stream.Close()
	var head [6]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		t.add(&t.broken)
		return
	}
	time.Sleep(time.Duration(binary.BigEndian.Uint16(head[4:])) * time.Millisecond)
	data, err := io.ReadAll(stream)
	if err != nil {
		t.add(&t.broken)
		return
	}
	if len(data) != int(binary.BigEndian.Uint32(head[:4])) {
		t.add(&t.wrong)
		return
	}
	sum := sha256.Sum256(data)
	if _, err := stream.Write(append(sum[:], data...)); err != nil {
		t.add(&t.broken)
		return
	}
	t.add(&t.whole)
}

func open(session *yamux.Session, random *rand.Rand, t *tally) {
	stream, err := session.OpenStream()
	if err != nil {
		t.add(&t.broken)
		return
	}
	length := 0
	switch random.Intn(10) {
	case 0:
	case 1:
		length = random.Intn(1 << 20)
	default:
		length = random.Intn(1 << 14)
	}
	data := make([]byte, 6+length)
	random.Read(data)
	binary.BigEndian.PutUint32(data, uint32(length))
	binary.BigEndian.PutUint16(data[4:], uint16(random.Intn(50)))
	if _, err := stream.Write(data); err != nil {
		t.add(&t.broken)
		return
	}
	stream.Close()
	answer, err := io.ReadAll(stream)
	sum := sha256.Sum256(data[6:])
	switch {
	case err != nil:
		t.add(&t.broken)
	case bytes.Equal(answer, append(sum[:], data[6:]...)):
		t.add(&t.whole)
	default:
		t.add(&t.wrong)
	}
}

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	seed, _ := strconv.ParseInt(os.Args[3], 10, 64)
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	var t tally
	var all sync.WaitGroup
	if os.Args[1] == "accept" {
		session, err := yamux.Server(stdio{}, config)
		if err != nil {
			panic(err)
		}
		for range count {
			stream, err := session.AcceptStream()
			if err != nil {
				break
			}
			all.Add(1)
			go func() { defer all.Done(); accept(stream, &t) }()
		}
		all.Wait()
		fmt.Fprintf(os.Stderr, "%d %d %d\n", t.whole, t.broken, t.wrong)
		session.GoAway()
		time.Sleep(100 * time.Millisecond)
		return
	}
	session, err := yamux.Client(stdio{}, config)
	if err != nil {
		panic(err)
	}
	// A stream at a time has its random numbers: the sequence is the same each time.
	gate := make(chan struct{}, 64)
	for number := range count {
		all.Add(1)
		gate <- struct{}{}
		random := rand.New(rand.NewSource(seed + int64(number)))
		go func() { defer all.Done(); open(session, random, &t); <-gate }()
	}
	all.Wait()
	fmt.Fprintf(os.Stderr, "%d %d %d\n", t.whole, t.broken, t.wrong)
	session.Close()
}
