/* words.cc: an extension module in C++ with pybind11 whose type shares memory by <isthmus/python.h>: an index of a text's words, which is made once
 * and then read by all interpreters of the process at the same time.
 *
 * The payload isn't bytes but a C++ object of the process's own heap, wrapped with its destructor: the last interpreter to let go of it destroys
 * it, in whatever thread, without a GIL. So there is no Python object in it, and nobody changes it once it is shared. (It can't go to another
 * process: there a message gives SegmentGoneError.)
 */
#include <isthmus/python.h>
#include <memory>
#include <mutex>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace py = pybind11;

namespace {

using Index = std::unordered_map<std::string, std::vector<int>>; /* a word, and the lines that have it, from 1 on */

const ist_python *ist; /* the same in all interpreters */
std::once_flag imported;

/* All indices of the process that are alive: a message may come from anywhere, and a segment that isn't one of these must not be read as one. */
std::mutex mutex;
std::unordered_set<const void *> alive;
long made; /* for tests */

void destroy(void *, void *data, size_t) {
    {
        std::lock_guard<std::mutex> guard(mutex);
        alive.erase(data);
    }
    delete static_cast<Index *>(data);
}

bool is_index(const void *data) {
    std::lock_guard<std::mutex> guard(mutex);
    return alive.count(data) != 0;
}

/* One reference of a payload. */
class Owned {
  public:
    explicit Owned(ist_segment taken) : segment_(taken) {}
    Owned(const Owned &other) : segment_(other.segment_) { ist->segment_retain(segment_); }
    Owned &operator=(const Owned &) = delete;
    ~Owned() { ist->segment_release(segment_); }
    ist_segment get() const { return segment_; }

  private:
    ist_segment segment_;
};

class Words {
  public:
    explicit Words(Owned payload) : payload_(payload), index_(static_cast<const Index *>(ist->segment_data(payload.get()))) {}

    static Words of(const std::string &text) {
        auto index = std::make_unique<Index>();
        std::istringstream lines(text);
        std::string line, word;
        for (int number = 1; std::getline(lines, line); number++)
            for (std::istringstream words(line); words >> word;) {
                auto &found = (*index)[word];
                if (found.empty() || found.back() != number)
                    found.push_back(number);
            }

        ist_segment segment;
        {
            std::lock_guard<std::mutex> guard(mutex);
            alive.insert(index.get());
            made++;
        }
        const int error = ist->segment_wrap(index.get(), sizeof(Index), destroy, nullptr, IST_READONLY, &segment);
        if (error != 0) {
            destroy(nullptr, index.release(), 0);
            ist->raise_error(error, "an index of words");
            throw py::error_already_set();
        }
        index.release(); /* destroy() has it now */
        return Words(Owned(segment));
    }

    std::vector<int> find(const std::string &word) const {
        const auto found = index_->find(word);
        return found == index_->end() ? std::vector<int>() : found->second;
    }
    size_t size() const { return index_->size(); }
    ist_segment payload() const { return payload_.get(); }

  private:
    Owned payload_;
    const Index *index_; /* in it */
};

/* ---- structured clone: called by isthmus, which is C, so no C++ exception leaves them ------------------------------------------------------- */

int encode(PyObject *object, ist_writer *w) {
    try {
        return ist->put_segment(w, py::cast<const Words &>(py::handle(object)).payload());
    } catch (py::error_already_set &error) {
        error.restore();
    } catch (const std::exception &error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return -1;
}

PyObject *decode(PyTypeObject *, ist_reader *r) {
    ist_segment segment;
    if (ist->get_segment(r, &segment) < 0)
        return nullptr;
    try {
        Owned payload(segment);
        if (!is_index(ist->segment_data(segment)))
            throw py::value_error("this segment is no index of words");
        return py::cast(Words(payload)).release().ptr();
    } catch (py::error_already_set &error) {
        error.restore();
    } catch (py::builtin_exception &error) {
        error.set_error();
    } catch (const std::exception &error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

} // namespace

PYBIND11_MODULE(words, m, py::multiple_interpreters::per_interpreter_gil()) {
    const ist_python *table = ist_python_import(); /* in each interpreter: it imports isthmus there */
    if (table == nullptr)
        throw py::error_already_set();
    std::call_once(imported, [table] { ist = table; });
    m.doc() = "An index of a text's words that all interpreters of a process read.";
    py::class_<Words> type(m, "Words");
    type.def(py::init(&Words::of), py::arg("text"))
        .def("find", &Words::find, py::arg("word"), "The numbers of the lines that have the word.")
        .def("__len__", &Words::size);
    if (ist->register_type(reinterpret_cast<PyTypeObject *>(type.ptr()), encode, decode) < 0)
        throw py::error_already_set();
    m.def(
        "count_indices",
        [] {
            std::lock_guard<std::mutex> guard(mutex);
            return std::pair<long, size_t>(made, alive.size());
        },
        "How many were made in this process, and how many of them are alive.");
}
