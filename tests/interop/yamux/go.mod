// hashicorp/yamux as the judge of kt_net.tunnel.mux: see tests/net/tunnel/test_yamux.py.
module ktnet.test/yamux

go 1.22

require github.com/hashicorp/yamux v0.1.2
