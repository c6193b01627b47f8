// One request from a tile to another and its reply, followed flit by flit.
#pragma once

#include <string>
#include <vector>

#include "nocsim/mesh.h"
#include "nocsim/traffic.h"

namespace nocsim {

struct RequestPlan {
  Config config;
  Node client = 0;
  Node server = 0;
  int request_words = 3;
  int reply_words = 2;
  Cycle work = 20;      // what the server computes between them
  Rate background = 0;  // words for each cycle and tile that all other tiles send each other
  Cycle warmup = 0;     // when the client begins
  uint64_t seed = 1;
};

struct RequestTrace {
  struct Hop {
    bool is_reply;
    Node node;
    int port;  // kLocal: to the endpoint
    Cycle leaves;
    Cycle arrives;
  };
  struct Span {
    Node tile;
    std::string what;
    Cycle from;
    Cycle to;
  };
  bool complete = false;
  Cycle begun = 0;
  Cycle ended = 0;  // the reply's last word is in the client's hands
  std::vector<Hop> hops;
  std::vector<Span> spans;  // of client and server
  std::string why;          // not complete
};

RequestTrace trace_request(const RequestPlan& plan);

}  // namespace nocsim
