#include "monitor/reaper.h"

#include "monitor/post.h"

namespace sluice::monitor {

bool Reaper::bury() {
  bool any = false;
  // A burial tells others, who may turn out to be gone as well.
  while (Client* client = clients_.next_doomed()) {
    bury(*client);
    any = true;
  }
  while (DomainId domain = watcher_.take_ended()) {
    core_.remove(domain);
    pairs_.remove(domain);
    tickets_.remove(domain);
  }
  return any;
}

void Reaper::bury(Client& client) {
  DomainId domain = client.domain;
  bool awaited = client.lives && watcher_.await(domain, client.process);
  if (client.stage == Stage::kWelcomed) {
    if (client.lives && client.reply_region) {  // it may sleep on nothing else than this
      client.reply_region->packets.fetch_add(1, std::memory_order_release);
      Post::knock(client);
    }
    transport_->leave(client);
    ledger_.close(*client.region);
    // The client holds the same open file, so that closing ours would not end the watch.
    events_.remove(client.summons.get());
  }
  events_.remove(client.socket.get());  // likewise, if it was made by a parent for its child
  clients_.remove(client);
  if (domain == shm::kNobody) return;
  if (awaited) return core_.suspend(domain);
  core_.remove(domain);
  pairs_.remove(domain);
  tickets_.remove(domain);
}

}  // namespace sluice::monitor
