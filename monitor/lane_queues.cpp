#include "monitor/lane_queues.h"

#include <algorithm>
#include <utility>

#include "monitor/divided.h"
#include "monitor/noc.h"
#include "shm/death_point.h"

namespace sluice::monitor {

template <class Lane>
void LaneQueues<Lane>::join(Client& client) {
  Lane::begin(client);
  lanes_.push_back({Lane::next(client), &client, 0});
}

template <class Lane>
void LaneQueues<Lane>::leave(Client& client) {
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].client != &client) continue;
    if (i < busy_) std::swap(lanes_[i], lanes_[--busy_]), i = busy_;
    lanes_[i] = lanes_.back();
    return lanes_.pop_back();
  }
}

template <class Lane>
void LaneQueues<Lane>::expect(const Client& client) {
  for (std::size_t i = busy_; i < lanes_.size(); ++i) {
    if (lanes_[i].client != &client) continue;
    lanes_[i].last_look = looks_;
    return std::swap(lanes_[i], lanes_[busy_++]);
  }
}

template <class Lane>
bool LaneQueues<Lane>::poll() {
  ++looks_;
  uint64_t served_before = served_;
  bool any = look_at_busy();
  return look_at_quiet(std::min(lanes_.size() - busy_, quiet_at_once(any, served_ - served_before))) || any;
}

template <class Lane>
std::size_t LaneQueues<Lane>::quiet_at_once(bool any, uint64_t served) const {
  if (seldom_) return any ? looks_ % kLooksPerQuiet == 0 : kQuietMeanwhile;
  return busy_ == 0 ? lanes_.size() : any ? kQuietAtOnce + std::size_t(served / kRequestsPerQuiet) : kQuietMeanwhile;
}

template <class Lane>
bool LaneQueues<Lane>::look_at_busy() {
  bool any = false;
  for (std::size_t i = 0; i < busy_; ++i) {
    if (look_at(lanes_[i])) any = true;
    else if (busy_ > kFewBusy && looks_ - lanes_[i].last_look > kBusyLooks) std::swap(lanes_[i--], lanes_[--busy_]);
  }
  return any;
}

template <class Lane>
bool LaneQueues<Lane>::look_at_quiet(std::size_t count) {
  bool any = false;
  for (; count > 0; --count) {
    if (turn_ < busy_ || turn_ >= lanes_.size()) turn_ = busy_;
    std::size_t i = turn_++;
    if (!look_at(lanes_[i])) continue;
    any = true;
    std::swap(lanes_[i], lanes_[busy_++]);
  }
  return any;
}

template <class Lane>
bool LaneQueues<Lane>::look_at(Entry& lane) {
  if (!is_servable(lane)) return false;
  serve(lane);
  post_.deliver(*lane.client);
  lane.last_look = looks_;
  return true;
}

template <class Lane>
bool LaneQueues<Lane>::has_requests() {
  for (const Entry& lane : lanes_)
    if (is_servable(lane)) return true;
  return false;
}

template <class Lane>
bool LaneQueues<Lane>::is_servable(const Entry& lane) {
  if (!lane.next.is_filled()) return false;
  // A client that does not take its replies gets no further ones.
  return !lane.client->doomed && lane.client->late_replies.empty() && !is_delayed(*lane.client);
}

template <class Lane>
void LaneQueues<Lane>::serve(Entry& lane) {
  Client& client = *lane.client;
  shm::Message request;
  for (uint32_t n = 0; n < shm::kMessages && client.late_replies.empty() && !is_delayed(client); ++n) {
    if (!Lane::try_take(clients_, client, request)) break;
    ++served_;
    ++Lane::served(client);
    shm::DeathPoint at_message("request taken", request.type);
    core_.handle(client.domain, request);
  }
  Lane::finish(client);
  lane.next = Lane::next(client);
}

template class LaneQueues<DividedLane>;
template class LaneQueues<NocLane>;

}  // namespace sluice::monitor
