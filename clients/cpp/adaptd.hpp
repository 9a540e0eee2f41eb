// A robot's side of adaptd: open a session, send observations, get actions.
//
//     adaptd::Client client;
//     adaptd::Session session = client.open({"halfcheetah-vel-rl2-gru"});
//     adaptd::Answer answer = session.step({observation});
//     apply(answer.action);
//     answer = session.step({observation, reward});
//
// C++17 and libzmq (link with -lzmq), nothing else. docs/protocol.md has the bytes. A Client with
// what came from it belongs to one thread. What cannot be done is thrown: Error for a refusal, with
// its code and sentence; Timeout for a control request that nobody answered; std::invalid_argument
// for what is no endpoint; std::runtime_error where libzmq fails.
#pragma once

#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <locale>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace adaptd {

using Bytes = std::string;
using Vector = std::vector<float>;
using Clock = std::chrono::steady_clock;

constexpr unsigned version = 1;
constexpr std::size_t header_size = 64;  // bytes
constexpr std::size_t max_floats = 4096;  // of one vector

enum class Kind : std::uint8_t { observation = 1, action = 2, error = 3 };
enum class ObservationFlag : std::uint16_t {
    episode_start = 1, new_task = 2, applied_action = 4, invalid = 8
};
enum class ActionFlag : std::uint16_t {
    repeated = 1, gap = 2, swapped = 4, fresh = 8, superseded = 16, frozen = 32
};
enum class Limit : std::uint16_t {
    bounds = 1, rate = 2, not_finite = 4, blend = 8, stale = 16, slow = 32, invalid = 64,
    stuck = 128, stopped = 256
};
enum class Adaptation : std::uint8_t { unadapted = 0, adapting = 1, adapted = 2, invalid = 3 };

// The name of a status code, as control replies write it.
inline std::string code_name(unsigned code) {
    static const std::map<unsigned, const char*> names = {
        {0, "OK"}, {1, "MALFORMED"}, {2, "WRONG_VERSION"}, {3, "WRONG_KIND"}, {4, "WRONG_SIZE"},
        {5, "UNKNOWN_SESSION"}, {6, "NOT_FINITE"}, {7, "OLD_SEQ"}, {8, "SEQ_TOO_FAR"},
        {9, "TWO_WAYS"}, {10, "NOT_ALLOWED"}, {11, "NOT_YOURS"}, {12, "REVOKED"},
        {13, "TOO_FAST"}, {20, "INVALID_REQUEST"}, {21, "UNKNOWN_POLICY"}, {22, "INVALID_BUNDLE"},
        {23, "INCOMPATIBLE"}, {25, "NEEDS_REWARD"}, {26, "TOO_MANY_SESSIONS"},
        {27, "NO_PREVIOUS_POLICY"}, {28, "INTERNAL"}, {29, "QUARANTINED"}, {30, "OTHER_POLICY"},
        {31, "NO_CANDIDATE"}, {32, "NO_ROOM"}, {33, "UNKNOWN_OPTION"}, {34, "NOTHING_GOOD"},
        {35, "UNSAFE_BUNDLE"}, {36, "UNTRUSTED_BUNDLE"}, {37, "DOWNGRADE"}};
    const auto found = names.find(code);
    return found == names.end() ? "CODE_" + std::to_string(code) : found->second;
}

// A refusal, by the daemon or already on this side.
class Error : public std::runtime_error {
public:
    explicit Error(std::string code_, std::string sentence_, std::string expected_ = "",
                   std::string found_ = "")
        : std::runtime_error(sentence_ + " [" + code_ + "]"), code(std::move(code_)),
          sentence(std::move(sentence_)), expected(std::move(expected_)),
          found(std::move(found_)) {}
    std::string code, sentence, expected, found;
};

// No reply to a control request in time.
class Timeout : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// ---------------------------------------------------------------- the wire

namespace detail {

template <class Unsigned>
void put(Bytes& to, Unsigned value) {  // little-endian, on any machine
    for (std::size_t i = 0; i < sizeof value; ++i) to.push_back(static_cast<char>(value >> 8 * i));
}

template <class Unsigned>
Unsigned get(const Bytes& from, std::size_t at) {
    Unsigned value = 0;
    for (std::size_t i = 0; i < sizeof value; ++i)
        value |= static_cast<Unsigned>(Unsigned{static_cast<unsigned char>(from[at + i])} << 8 * i);
    return value;
}

inline void put_float(Bytes& to, float value) {
    static_assert(sizeof(float) == 4 && std::numeric_limits<float>::is_iec559, "needs binary32");
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    put(to, bits);
}

inline float get_float(const Bytes& from, std::size_t at) {
    const auto bits = get<std::uint32_t>(from, at);
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline Vector get_floats(const Bytes& from, std::size_t at, std::size_t count) {
    Vector values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = get_float(from, at + 4 * i);
    return values;
}

}  // namespace detail

// The fixed part of every message.
struct Header {
    std::uint8_t kind = 0;  // of Kind
    std::uint16_t flags = 0;  // of ObservationFlag or ActionFlag
    std::uint64_t session = 0, seq = 0;
    std::uint64_t time_ns = 0;  // sender's monotonic clock
    float reward = 0;  // of the step that led to this observation
    std::uint32_t generation = 0;
    std::uint16_t first = 0;  // floats in the first vector; in an error, bytes of its sentence
    std::uint16_t second = 0;  // floats in the second vector
    std::uint16_t status = 0;  // code of an error
    std::uint16_t limits = 0;  // of Limit
    std::uint32_t queue_ns = 0, inference_ns = 0;
    std::uint8_t adaptation = 0;  // of Adaptation

    Bytes pack() const {
        using namespace detail;
        Bytes to = "ADPT";
        put<std::uint8_t>(to, version), put(to, kind), put(to, flags);
        put(to, session), put(to, seq), put(to, time_ns), put_float(to, reward);
        put(to, generation), put(to, first), put(to, second), put(to, status), put(to, limits);
        put(to, queue_ns), put(to, inference_ns), put(to, adaptation);
        to.resize(header_size, '\0');
        return to;
    }
};

// The header of a frame whose length it agrees with. Throws Error: MALFORMED, WRONG_VERSION or
// WRONG_SIZE.
inline Header unpack(const Bytes& frame) {
    using namespace detail;
    if (frame.size() < header_size || frame.compare(0, 4, "ADPT") != 0)
        throw Error("MALFORMED", "a frame of " + std::to_string(frame.size()) +
                                     " bytes is no message: it takes ADPT and a header of 64");
    const unsigned spoken = get<std::uint8_t>(frame, 4);
    if (spoken != version)
        throw Error("WRONG_VERSION", "protocol version " + std::to_string(spoken) +
                                         ": this side speaks " + std::to_string(version));
    Header h;
    h.kind = get<std::uint8_t>(frame, 5), h.flags = get<std::uint16_t>(frame, 6);
    h.session = get<std::uint64_t>(frame, 8), h.seq = get<std::uint64_t>(frame, 16);
    h.time_ns = get<std::uint64_t>(frame, 24), h.reward = get_float(frame, 32);
    h.generation = get<std::uint32_t>(frame, 36), h.first = get<std::uint16_t>(frame, 40);
    h.second = get<std::uint16_t>(frame, 42), h.status = get<std::uint16_t>(frame, 44);
    h.limits = get<std::uint16_t>(frame, 46), h.queue_ns = get<std::uint32_t>(frame, 48);
    h.inference_ns = get<std::uint32_t>(frame, 52), h.adaptation = get<std::uint8_t>(frame, 56);
    const bool is_error = h.kind == static_cast<std::uint8_t>(Kind::error);
    const std::size_t announced = is_error ? h.first : std::size_t{4} * (h.first + h.second);
    if (frame.size() != header_size + announced)
        throw Error("WRONG_SIZE", "a payload of " + std::to_string(frame.size() - header_size) +
                                      " bytes: the header announces " + std::to_string(announced));
    return h;
}

namespace detail {

// The header of a reply; none of noise on the way: the answer is lost then, and its sequence number
// must not be used again. Throws Error: WRONG_VERSION.
inline std::optional<Header> unpack_unless_noise(const Bytes& frame) {
    try {
        return unpack(frame);
    } catch (const Error& error) {
        if (error.code == "WRONG_VERSION") throw;
        return std::nullopt;
    }
}

}  // namespace detail

// The refusal in an error message.
inline Error parse_error(const Bytes& frame, const Header& header) {
    return Error(code_name(header.status), frame.substr(header_size));
}

// An action and what the daemon says about it.
struct Answer {
    Vector action;  // (A,), what to apply; the fallback action if the daemon was silent
    Vector requested;  // (A,), what the policy wanted; differs from `action` where a limit acted
    std::uint16_t limits = 0, flags = 0;  // see `has`
    Adaptation adaptation = Adaptation::unadapted;
    std::uint32_t generation = 0;  // of the session's policies; grows by one at each swap
    std::uint64_t seq = 0;
    bool silent = false;  // no answer came in time: `action` is the fallback
    std::uint32_t queue_ns = 0, inference_ns = 0;

    bool has(Limit limit) const { return limits & static_cast<std::uint16_t>(limit); }
    bool has(ActionFlag flag) const { return flags & static_cast<std::uint16_t>(flag); }
};

// The answer in an action message.
inline Answer parse_answer(const Bytes& frame, const Header& h) {
    Answer answer;
    answer.action = detail::get_floats(frame, header_size, h.first);
    answer.requested = h.second
        ? detail::get_floats(frame, header_size + std::size_t{4} * h.first, h.second)
        : answer.action;
    answer.limits = h.limits, answer.flags = h.flags;
    answer.adaptation = static_cast<Adaptation>(h.adaptation);
    answer.generation = h.generation, answer.seq = h.seq;
    answer.queue_ns = h.queue_ns, answer.inference_ns = h.inference_ns;
    return answer;
}

// The four addresses of an endpoint.
struct Addresses {
    std::string data, control, tap, stream;
};

// ipc://PATH gives PATH-data, PATH-control, PATH-tap and PATH-stream; tcp://HOST:PORT the ports
// PORT to PORT+3. Throws std::invalid_argument if the endpoint is neither.
inline Addresses addresses(const std::string& endpoint) {
    if (endpoint.size() > 6 && endpoint.compare(0, 6, "ipc://") == 0)
        return {endpoint + "-data", endpoint + "-control", endpoint + "-tap", endpoint + "-stream"};
    const auto colon = endpoint.rfind(':');
    if (endpoint.compare(0, 6, "tcp://") == 0 && colon != std::string::npos && colon > 6) {
        const std::string host = endpoint.substr(0, colon + 1), digits = endpoint.substr(colon + 1);
        const bool number = !digits.empty() && digits.size() < 6 &&
                            digits.find_first_not_of("0123456789") == std::string::npos;
        const int port = number ? std::stoi(digits) : 0;
        if (0 < port && port < 65533)
            return {host + std::to_string(port), host + std::to_string(port + 1),
                    host + std::to_string(port + 2), host + std::to_string(port + 3)};
    }
    throw std::invalid_argument("'" + endpoint +
                                "' is no endpoint: expected ipc://PATH or tcp://HOST:PORT");
}

// Where the daemon serves unless told otherwise: $ADAPTD_ENDPOINT, or a folder of the user's.
inline std::string default_endpoint() {
    const char* told = std::getenv("ADAPTD_ENDPOINT");
    if (told && *told) return told;
    const char* folder = std::getenv("XDG_RUNTIME_DIR");
    if (folder && *folder) return std::string("ipc://") + folder + "/adaptd";
    return "ipc:///tmp/adaptd-" + std::to_string(getuid()) + "/adaptd";
}

// What a client shows to a daemon that asks for keys over tcp (docs/keys.md), in Z85.
struct Key {
    std::string public_key, secret_key, server_key;
};

// The key in a file of `adaptd keygen`: lines of NAME = "VALUE", and comments after #.
// Throws std::invalid_argument if it cannot be read or is no client's key file.
inline Key read_key(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::invalid_argument("the key file " + path + " cannot be read");
    std::map<std::string, std::string> found;
    for (std::string line; std::getline(file, line);) {
        const auto open = line.find('"'), end = line.find('"', open + 1);
        const auto first = line.find_first_not_of(" \t");
        if (first == std::string::npos || line[first] == '#' || open == std::string::npos ||
            end == std::string::npos)
            continue;
        const auto last = line.find_first_of(" \t=", first);
        found[line.substr(first, last - first)] = line.substr(open + 1, end - open - 1);
    }
    for (const char* name : {"public", "secret", "server"})
        if (found[name].size() != 40)
            throw std::invalid_argument(path + " is no client's key file: " + name +
                                        " is not a key of 40 characters");
    return {found["public"], found["secret"], found["server"]};
}

// The key in the file that $ADAPTD_KEY names; none where it is not set.
inline std::optional<Key> default_key() {
    const char* told = std::getenv("ADAPTD_KEY");
    return told && *told ? std::optional<Key>(read_key(told)) : std::nullopt;
}

// ---------------------------------------------------------------- JSON, as control replies use it

// A JSON value, read only. Looking for what is not there throws Error MALFORMED.
class Json {
public:
    enum class Type { null, boolean, number, string, array, object };

    // Throws Error MALFORMED: not JSON, or nested deeper than 64.
    static Json parse(const std::string& text);

    Type type() const { return type_; }
    bool is_null() const { return type_ == Type::null; }
    bool boolean() const { return expect(Type::boolean, "a truth value").number_ != 0; }
    double number() const { return expect(Type::number, "a number").number_; }
    const std::string& string() const { return expect(Type::string, "a string").string_; }
    // The values of an array, or of an object in the order of `keys`.
    const std::vector<Json>& items() const { return items_; }
    const std::vector<std::string>& keys() const { return keys_; }
    const Json& operator[](const std::string& key) const {
        const auto found = std::find(keys_.begin(), keys_.end(), key);
        if (found == keys_.end()) throw Error("MALFORMED", "the reply has no '" + key + "'");
        return items_[static_cast<std::size_t>(found - keys_.begin())];
    }

private:
    class Reader;
    const Json& expect(Type type, const char* what) const {
        if (type_ != type) throw Error("MALFORMED", std::string("the reply has no ") + what);
        return *this;
    }
    Type type_ = Type::null;
    double number_ = 0;
    std::string string_;
    std::vector<Json> items_;
    std::vector<std::string> keys_;
};

class Json::Reader {
public:
    explicit Reader(const std::string& text) : text_(text) {}

    Json document() {
        Json value = this->value(0);
        skip_space();
        if (at_ != text_.size()) fail();
        return value;
    }

private:
    [[noreturn]] void fail() const {
        throw Error("MALFORMED", "this is not JSON from byte " + std::to_string(at_) + " on");
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    char skip_space() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) && text_[at_]) ++at_;
        return peek();
    }
    bool took(const std::string& word) {
        if (text_.compare(at_, word.size(), word) != 0) return false;
        at_ += word.size();
        return true;
    }

    Json value(int depth) {
        if (depth > 64) fail();
        const char next = skip_space();
        Json found;
        if (next == '{' || next == '[') return container(next, depth);
        if (next == '"') {
            found.type_ = Type::string, found.string_ = string();
        } else if (next == 't' ? took("true") : took("false")) {
            found.type_ = Type::boolean, found.number_ = next == 't';
        } else if (!took("null")) {
            found.type_ = Type::number, found.number_ = number();
        }
        return found;
    }

    Json container(char open, int depth) {
        const char close = open == '{' ? '}' : ']';
        Json found;
        found.type_ = open == '{' ? Type::object : Type::array;
        ++at_;
        if (skip_space() == close) return ++at_, found;
        while (true) {
            if (open == '{') {
                if (skip_space() != '"') fail();
                found.keys_.push_back(string());
                if (skip_space() != ':') fail();
                ++at_;
            }
            found.items_.push_back(value(depth + 1));
            const char next = skip_space();
            if (next != ',' && next != close) fail();
            ++at_;
            if (next == close) return found;
        }
    }

    double number() {
        if (took("NaN")) return std::numeric_limits<double>::quiet_NaN();  // as Python writes them
        if (took("Infinity")) return std::numeric_limits<double>::infinity();
        if (took("-Infinity")) return -std::numeric_limits<double>::infinity();
        const auto end = std::min(text_.find_first_not_of("+-.0123456789eE", at_), text_.size());
        std::istringstream digits(text_.substr(at_, end - at_));
        digits.imbue(std::locale::classic());  // the program's own may want a decimal comma
        double found = 0;
        if (peek() == '+' || !(digits >> found) || !digits.eof()) fail();
        at_ = end;
        return found;
    }

    std::string string() {
        std::string found;
        for (++at_; peek() != '"'; ++at_) {
            if (static_cast<unsigned char>(peek()) < 0x20) fail();  // also where the text ends
            if (peek() != '\\') {
                found.push_back(peek());
                continue;
            }
            ++at_;
            static const std::string escapes = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
            const auto which = escapes.find(peek());
            if (peek() == 'u') append_utf8(found, code_point());
            else if (which != std::string::npos) found.push_back(meanings[which]);
            else fail();
        }
        ++at_;
        return found;
    }

    unsigned hex4() {  // leaves `at_` on the last digit
        unsigned found = 0;
        for (int i = 0; i < 4; ++i) {
            ++at_;
            const char digit = peek();
            if (!std::isxdigit(static_cast<unsigned char>(digit))) fail();
            found = 16 * found + static_cast<unsigned>(std::strtol(std::string(1, digit).c_str(),
                                                                   nullptr, 16));
        }
        return found;
    }

    unsigned code_point() {
        const unsigned first = hex4();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (first > 0xDBFF || text_.compare(at_ + 1, 2, "\\u") != 0) return 0xFFFD;
        const auto before = at_;
        at_ += 2;
        const unsigned second = hex4();
        if (0xDC00 <= second && second <= 0xDFFF)
            return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        at_ = before;  // half of a pair
        return 0xFFFD;
    }

    static void append_utf8(std::string& to, unsigned point) {
        const auto add = [&to](unsigned byte) { to.push_back(static_cast<char>(byte)); };
        const auto rest = [&](int shift) { add(0x80 | ((point >> shift) & 0x3F)); };
        if (point < 0x80) return add(point);
        if (point < 0x800) return add(0xC0 | point >> 6), rest(0);
        if (point < 0x10000) return add(0xE0 | point >> 12), rest(6), rest(0);
        add(0xF0 | point >> 18), rest(12), rest(6), rest(0);
    }

    const std::string& text_;
    std::size_t at_ = 0;
};

inline Json Json::parse(const std::string& text) { return Reader(text).document(); }

// A string as JSON writes it, with its quotes.
inline std::string quoted(const std::string& text) {
    std::string to = "\"";
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x20) {
            static const char digits[] = "0123456789abcdef";
            to += std::string("\\u00") + digits[c >> 4] + digits[c & 15];
        } else {
            if (c == '"' || c == '\\') to += '\\';
            to += c;
        }
    }
    return to + '"';
}

// ---------------------------------------------------------------- sockets

namespace detail {

[[noreturn]] inline void fail(const std::string& what) {
    throw std::runtime_error(what + ": " + zmq_strerror(zmq_errno()));
}

inline Clock::time_point after(double timeout_s) {
    const double bounded = timeout_s > 0 ? std::min(timeout_s, 1e6) : 0.0;
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(bounded));
}

// A connected socket, which keeps its context for as long as it is open.
class Socket {
public:
    Socket() = default;
    Socket(const std::shared_ptr<void>& context, int kind, const std::string& address,
           const std::optional<Key>& key) {
        void* opened = zmq_socket(context.get(), kind);
        if (!opened) fail("no socket");
        socket_ = std::shared_ptr<void>(opened, [context](void* it) { zmq_close(it); });
        const int no_linger = 0, reconnect_ms = 20, ipv6 = 1;
        if (address.compare(0, 7, "tcp://[") == 0)
            zmq_setsockopt(opened, ZMQ_IPV6, &ipv6, sizeof ipv6);
        zmq_setsockopt(opened, ZMQ_LINGER, &no_linger, sizeof no_linger);
        zmq_setsockopt(opened, ZMQ_RECONNECT_IVL, &reconnect_ms, sizeof reconnect_ms);
        if (key && address.compare(0, 6, "tcp://") == 0) show(opened, *key);
        if (zmq_connect(opened, address.c_str()) != 0) fail(address + " cannot be connected to");
    }
    explicit operator bool() const { return static_cast<bool>(socket_); }

    // Let a socket encrypt, and say who it is.
    static void show(void* opened, const Key& key) {
        const int slowest_ms = 1000;  // one whose key is refused must not keep the daemon busy
        zmq_setsockopt(opened, ZMQ_RECONNECT_IVL_MAX, &slowest_ms, sizeof slowest_ms);
        for (const auto& [option, value] : {std::pair(ZMQ_CURVE_SERVERKEY, &key.server_key),
                                            std::pair(ZMQ_CURVE_PUBLICKEY, &key.public_key),
                                            std::pair(ZMQ_CURVE_SECRETKEY, &key.secret_key)})
            if (zmq_setsockopt(opened, option, value->c_str(), value->size() + 1) != 0)
                fail("this libzmq takes no keys");
    }

    void subscribe(const Bytes& topic) {
        if (zmq_setsockopt(socket_.get(), ZMQ_SUBSCRIBE, topic.data(), topic.size()) != 0)
            fail("no subscription");
    }

    // Whether it could be sent without waiting.
    bool send(const Bytes& frame, bool more = false) {
        const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
        while (zmq_send(socket_.get(), frame.data(), frame.size(), flags) < 0) {
            if (zmq_errno() == EAGAIN) return false;
            if (zmq_errno() != EINTR) fail("nothing can be sent");
        }
        return true;
    }

    // The frames of the next message; none if there is no message until the deadline.
    std::vector<Bytes> receive(Clock::time_point deadline) {
        zmq_pollitem_t item{socket_.get(), 0, ZMQ_POLLIN, 0};
        while (true) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
            const int ready = zmq_poll(&item, 1, left.count() > 0 ? left.count() : 0);
            if (ready > 0) return parts();
            if (ready < 0 && zmq_errno() != EINTR) fail("nothing can be received");
            if (Clock::now() >= deadline) return {};
        }
    }

private:
    std::vector<Bytes> parts() {
        std::vector<Bytes> found;
        zmq_msg_t part;
        bool more = true;
        while (more) {
            zmq_msg_init(&part);
            while (zmq_msg_recv(&part, socket_.get(), ZMQ_DONTWAIT) < 0)
                if (zmq_errno() != EINTR) fail("nothing can be received");
            found.emplace_back(static_cast<const char*>(zmq_msg_data(&part)), zmq_msg_size(&part));
            more = zmq_msg_more(&part);
            zmq_msg_close(&part);
        }
        return found;
    }

    std::shared_ptr<void> socket_;
};

// What a client and its sessions share.
class Connection {
public:
    Connection(std::string endpoint, double timeout_s, std::optional<Key> shown)
        : at(addresses(endpoint)), context(zmq_ctx_new(), zmq_ctx_term), key(std::move(shown)),
          endpoint_(std::move(endpoint)), timeout_s_(timeout_s),
          control_(context, ZMQ_DEALER, at.control, key) {}

    std::string request(const std::string& json) {
        const auto deadline = after(timeout_s_);
        Bytes tag;
        put(tag, ++requests_);  // a late reply to an older request is known by it
        if (control_.send(tag, true) && control_.send(json))
            for (auto reply = control_.receive(deadline); !reply.empty();
                 reply = control_.receive(deadline))
                if (reply.size() == 2 && reply[0] == tag) return checked(reply[1]);
        throw Timeout("no reply from " + endpoint_ + " in time: is `adaptd serve` running?");
    }

    const Addresses at;
    const std::shared_ptr<void> context;
    const std::optional<Key> key;

private:
    static std::string checked(const std::string& reply) {
        const Json content = Json::parse(reply);
        if (content["ok"].boolean()) return reply;
        const Json& error = content["error"];
        throw Error(error["code"].string(), error["sentence"].string(), error["expected"].string(),
                    error["found"].string());
    }

    std::string endpoint_;
    double timeout_s_;
    Socket control_;
    std::uint64_t requests_ = 0;
};

}  // namespace detail

// ---------------------------------------------------------------- sessions

// What a robot says at one tick.
struct Observation {
    Vector values;  // (O,), raw readings in the units of the manifest
    double reward = 0;  // of the step that led here
    // (A,), what the robot really did since the last observation; empty if it applied the action
    // of the last answer, the fallback too.
    Vector applied_action = {};
    bool episode_start = false;  // the previous episode ended before this observation
    bool new_task = false;  // the task is a new one: the memory goes back to the prior
    bool invalid = false;  // not to be trusted: no step is made, the fallback action is answered
};

// One robot's session. Moves, but cannot be copied: there is one count of its ticks.
class Session {
public:
    Session(std::shared_ptr<detail::Connection> connection, Json facts_)
        : facts(std::move(facts_)), id(static_cast<std::uint64_t>(facts["session"].number())),
          resumed(facts["resumed"].boolean()),
          next_seq(static_cast<std::uint64_t>(facts["next_seq"].number())),
          connection_(std::move(connection)),
          socket_(connection_->context, ZMQ_DEALER, connection_->at.data, connection_->key) {
        for (const Json& value : facts["fallback_action"].items())
            fallback.push_back(static_cast<float>(value.number()));
    }
    Session(Session&&) = default;
    Session& operator=(Session&&) = default;

    // Send one observation and wait for its action. Without an answer within `timeout_s` [s] the
    // fallback action is given, marked `silent`. The tick is over then: its late answer will not be
    // taken for another's, the next observation says that the fallback was applied, and a boundary
    // that the daemon may not have heard of is told again.
    // Throws Error: a vector is of the wrong size, or the daemon refused the observation; nothing
    // changed there and the same sequence number is used again.
    Answer step(const Observation& observation, double timeout_s = 1.0) {
        if (unheard_)
            for (auto late = socket_.receive(Clock::now()); !late.empty();
                 late = socket_.receive(Clock::now()))
                if (const auto header = detail::unpack_unless_noise(late[0])) note_late(*header);
        const std::uint16_t flags = flags_of(observation);
        const Bytes frame = pack(observation, flags);
        const auto deadline = detail::after(timeout_s);
        std::optional<Answer> answer;
        if (socket_.send(frame)) answer = receive(deadline);
        const std::uint64_t seq = next_seq++;
        if (answer) {
            unheard_.reset();
            return *answer;
        }
        unheard_ = static_cast<std::uint16_t>(flags & boundaries);
        Answer silence;
        silence.action = silence.requested = fallback;
        silence.seq = seq, silence.silent = true;
        return silence;
    }

    // Send one observation down the stream, where nobody answers; its action is on the tap. A
    // session that is stepped and streamed within the same second is refused (TWO_WAYS). While
    // the daemon is away observations wait, up to libzmq's high-water mark.
    // Returns false, and the tick has not been, if no more can wait.
    // Throws Error: a vector is of the wrong size.
    bool send(const Observation& observation) {
        if (!stream_)
            stream_ = detail::Socket(connection_->context, ZMQ_PUSH, connection_->at.stream,
                                     connection_->key);
        if (!stream_.send(pack(observation, flags_of(observation)))) return false;
        ++next_seq;
        unheard_.reset();
        return true;
    }

    // End the session on the daemon: its memory is forgotten. Throws as Client::request.
    void close() {
        connection_->request("{\"version\":1,\"op\":\"close\",\"session\":" + std::to_string(id) +
                             "}");
    }

    Json facts;  // what the daemon said at `open`: elements, units and limits of the policy
    std::uint64_t id;
    bool resumed;  // it was open already
    std::uint64_t next_seq;
    Vector fallback;  // (A,), of the policy at `open`

private:
    static constexpr std::uint16_t boundaries =
        static_cast<std::uint16_t>(ObservationFlag::episode_start) |
        static_cast<std::uint16_t>(ObservationFlag::new_task);

    std::uint16_t flags_of(const Observation& observation) const {
        std::uint16_t flags = unheard_.value_or(0);
        const auto set = [&flags](ObservationFlag flag, bool on) {
            flags |= on ? static_cast<std::uint16_t>(flag) : 0;
        };
        set(ObservationFlag::episode_start, observation.episode_start);
        set(ObservationFlag::new_task, observation.new_task);
        set(ObservationFlag::invalid, observation.invalid);
        set(ObservationFlag::applied_action, !observation.applied_action.empty() || unheard_);
        return flags;
    }

    Bytes pack(const Observation& observation, std::uint16_t flags) const {
        if (!(std::abs(observation.reward) <= std::numeric_limits<float>::max()))
            throw Error("NOT_FINITE", "the previous reward is not finite");
        const bool applied = flags & static_cast<std::uint16_t>(ObservationFlag::applied_action);
        const bool told = !observation.applied_action.empty();
        const Vector second = told ? observation.applied_action : applied ? fallback : Vector{};
        check("observation", observation.values.size(), facts["observation"].items().size());
        if (applied) check("applied action", second.size(), facts["action"].items().size());
        Header header;
        header.kind = static_cast<std::uint8_t>(Kind::observation);
        header.flags = flags, header.session = id, header.seq = next_seq;
        header.time_ns = static_cast<std::uint64_t>(
            std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
        header.reward = static_cast<float>(observation.reward);
        header.first = static_cast<std::uint16_t>(observation.values.size());
        header.second = static_cast<std::uint16_t>(second.size());
        Bytes frame = header.pack();
        for (const float value : observation.values) detail::put_float(frame, value);
        for (const float value : second) detail::put_float(frame, value);
        return frame;
    }

    void check(const char* what, std::size_t found, std::size_t expected) const {
        if (found != expected)
            throw Error("WRONG_SIZE", std::string("an ") + what + " of " + std::to_string(found) +
                                          " numbers: " + facts["policy"].string() + " takes " +
                                          std::to_string(expected));
    }

    // The answer to `next_seq`; answers to older ones are let go.
    std::optional<Answer> receive(Clock::time_point deadline) {
        for (auto reply = socket_.receive(deadline); !reply.empty();
             reply = socket_.receive(deadline)) {
            const auto header = detail::unpack_unless_noise(reply[0]);
            if (!header) continue;
            const bool refused = header->kind == static_cast<std::uint8_t>(Kind::error);
            if (refused && (header->seq == next_seq || header->session == 0))
                throw parse_error(reply[0], *header);
            if (header->seq == next_seq) return parse_answer(reply[0], *header);
            note_late(*header);
        }
        return std::nullopt;
    }

    // A late answer tells that the silent tick's boundaries were heard of after all.
    void note_late(const Header& header) {
        if (unheard_ && header.kind == static_cast<std::uint8_t>(Kind::action) &&
            header.seq + 1 == next_seq)
            unheard_ = std::uint16_t{0};
    }

    std::shared_ptr<detail::Connection> connection_;
    detail::Socket socket_, stream_;
    std::optional<std::uint16_t> unheard_;  // boundaries of the last tick, if that was silent
};

// ---------------------------------------------------------------- the tap

// One tick as seen on the tap.
struct Tick {
    std::uint64_t session = 0, seq = 0;
    Vector observation;  // (O,)
    Answer answer;
    Vector belief;  // all belief outputs in the manifest's order, flattened
    std::optional<Error> refusal;  // of a frame that came down the stream; then nothing was stepped
};

// Every tick that the daemon makes, for looking on.
class Tap {
public:
    explicit Tap(detail::Socket socket) : socket_(std::move(socket)) {}

    // The ticks that have come, waiting up to `timeout_s` [s] for the first.
    std::vector<Tick> ticks(double timeout_s = 0) {
        std::vector<Tick> found;
        for (auto frames = socket_.receive(detail::after(timeout_s)); !frames.empty();
             frames = socket_.receive(Clock::now()))
            if (frames.size() == 4 && frames[0].size() == 8) found.push_back(parse(frames));
        return found;
    }

private:
    static Tick parse(const std::vector<Bytes>& frames) {
        Tick tick;
        const Header reply = unpack(frames[2]);
        tick.session = detail::get<std::uint64_t>(frames[0], 0);
        tick.seq = reply.seq;
        tick.belief = detail::get_floats(frames[3], 0, frames[3].size() / 4);
        if (reply.kind == static_cast<std::uint8_t>(Kind::error)) {
            tick.refusal = parse_error(frames[2], reply);  // the observation may be anything then
            return tick;
        }
        tick.observation = detail::get_floats(frames[1], header_size, unpack(frames[1]).first);
        tick.answer = parse_answer(frames[2], reply);
        return tick;
    }

    detail::Socket socket_;
};

// ---------------------------------------------------------------- the client

// What is asked at `open`.
struct Opening {
    std::string policy = "";  // "name" or "name@version", of a new session; "" for the default
    std::uint64_t session = 0;  // one that is open goes on with the policy it has; 0 for a new id
    bool sends_reward = true;  // whether observations will carry rewards
    std::map<std::string, double> options = {};  // of the policy, by name
};

// A connection to one daemon.
class Client {
public:
    // Args: where the daemon serves; how long control requests may take [s]: they may load; and the
    // key for a daemon that asks for one over tcp.
    explicit Client(const std::string& endpoint = default_endpoint(), double timeout_s = 5.0,
                    std::optional<Key> key = default_key())
        : connection_(std::make_shared<detail::Connection>(endpoint, timeout_s, std::move(key))) {}

    // Make a control request, {"version":1,"op":...}, and give the reply as it came; see Json.
    // Throws Error: it was refused. Timeout: nobody replied.
    std::string request(const std::string& json) { return connection_->request(json); }

    // Open a session, or come back to one. Throws as `request`.
    Session open(const Opening& asked = {}) {
        std::ostringstream json;
        json.imbue(std::locale::classic());
        json.precision(17);
        json << "{\"version\":1,\"op\":\"open\",\"sends_reward\":"
             << (asked.sends_reward ? "true" : "false");
        if (!asked.policy.empty()) json << ",\"policy\":" << quoted(asked.policy);
        if (asked.session) json << ",\"session\":" << asked.session;
        const char* before = ",\"options\":{";
        for (const auto& [name, value] : asked.options) {
            json << before << quoted(name) << ':' << value;
            before = ",";
        }
        json << (asked.options.empty() ? "}" : "}}");
        return Session(connection_, Json::parse(request(json.str()))["result"]);
    }

    // Listen to every tick of one session, or of all (0).
    Tap tap(std::uint64_t session = 0) {
        detail::Socket socket(connection_->context, ZMQ_SUB, connection_->at.tap,
                              connection_->key);
        Bytes topic;
        if (session) detail::put(topic, session);
        socket.subscribe(topic);
        return Tap(std::move(socket));
    }

private:
    std::shared_ptr<detail::Connection> connection_;
};

}  // namespace adaptd
