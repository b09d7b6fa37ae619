"""docs/bullring.lua: a Wireshark dissector. The tables are generated, the code below them is written by hand."""

from __future__ import annotations

from ringbuf.wire.emit_c import SOFH_ENCODING_TYPE
from ringbuf.wire.schema import EnumType, Field, Message, Schema, SimpleType, snake

_HEAD = """\
-- @BANNER@
--
-- Load with: tshark -X lua_script:docs/bullring.lua, or copy into the personal plugin folder.
-- bullring_oe: order entry over TCP; the port is a preference (bullring_oe.port, 9100).
-- bullring_md: market data inside MoldUDP64 and SoupBinTCP. Say which UDP port is Mold with
--   -d udp.port==PORT,moldudp64 -d moldudp64.payload,bullring_md, and which TCP port is Soup with
--   -d tcp.port==PORT,soupbintcp.

local enums, sets, oe_messages, md_messages = {}, {}, {}, {}
"""

_BODY = """\
local oe = Proto("bullring_oe", "Bullring order entry")
local md = Proto("bullring_md", "Bullring market data")

local FRAME_HEADER_SIZE = 32
local FRAME_LENGTH_MAX = 256
local MARKET_HEADER_SIZE = 8
local SOFH_SIZE = 6

local makers = {
    uint8 = ProtoField.uint8, uint16 = ProtoField.uint16, uint32 = ProtoField.uint32, uint64 = ProtoField.uint64,
    int8 = ProtoField.int8, int16 = ProtoField.int16, int32 = ProtoField.int32, int64 = ProtoField.int64,
}
local nulls = {
    uint8 = "FF", uint16 = "FFFF", uint32 = "FFFFFFFF", uint64 = "FFFFFFFFFFFFFFFF",
    int8 = "80", int16 = "0080", int32 = "00000080", int64 = "0000000000000080",
}

local function make_field(abbreviation, name, primitive, kind)
    if primitive == "text" then return ProtoField.string(abbreviation, name) end
    if primitive == "raw" then return ProtoField.bytes(abbreviation, name) end
    if sets[kind] then return makers[primitive](abbreviation, name, base.HEX) end
    return makers[primitive](abbreviation, name, base.DEC, enums[kind])
end

-- Wireshark wants one list of fields per protocol; a name used with one type only is shared by all messages.
local function register(proto, messages, extra)
    local made, list = {}, {}
    for _, message in pairs(messages) do
        for _, field in ipairs(message.fields) do
            if field[1] ~= "" then
                local abbreviation = proto.name:lower() .. "." .. field[1]
                if not made[abbreviation] then
                    made[abbreviation] = make_field(abbreviation, field[2], field[5], field[6])
                    list[#list + 1] = made[abbreviation]
                end
                field.proto_field = made[abbreviation]
            end
        end
    end
    for _, field in pairs(extra) do list[#list + 1] = field end
    proto.fields = list
end

local function names_of(messages)
    local names = {}
    for id, message in pairs(messages) do names[id] = message.name end
    return names
end

local oe_header = {
    length = ProtoField.uint32("bullring_oe.message_length", "messageLength"),
    encoding = ProtoField.uint16("bullring_oe.encoding_type", "encodingType", base.HEX),
    block = ProtoField.uint16("bullring_oe.block_length", "blockLength"),
    template = ProtoField.uint16("bullring_oe.template_id", "templateId", base.DEC, names_of(oe_messages)),
    schema = ProtoField.uint16("bullring_oe.schema_id", "schemaId"),
    version = ProtoField.uint16("bullring_oe.schema_version", "version"),
    flags = ProtoField.uint16("bullring_oe.flags", "flags", base.HEX),
    partition = ProtoField.uint8("bullring_oe.flags_partition", "partition"),
    sequence = ProtoField.uint64("bullring_oe.seq_num", "seqNum"),
    time = ProtoField.uint64("bullring_oe.sending_time", "sendingTime"),
}
local md_header = {
    block = ProtoField.uint16("bullring_md.block_length", "blockLength"),
    template = ProtoField.uint16("bullring_md.template_id", "templateId", base.DEC, names_of(md_messages)),
    schema = ProtoField.uint16("bullring_md.schema_id", "schemaId"),
    version = ProtoField.uint16("bullring_md.schema_version", "version"),
}
register(oe, oe_messages, oe_header)
register(md, md_messages, md_header)

local oe_padding = ProtoExpert.new("bullring_oe.padding", "Padding is not zero",
    expert.group.PROTOCOL, expert.severity.WARN)
local oe_malformed = ProtoExpert.new("bullring_oe.malformed", "Malformed frame",
    expert.group.MALFORMED, expert.severity.ERROR)
local md_padding = ProtoExpert.new("bullring_md.padding", "Padding is not zero",
    expert.group.PROTOCOL, expert.severity.WARN)
local md_malformed = ProtoExpert.new("bullring_md.malformed", "Malformed message",
    expert.group.MALFORMED, expert.severity.ERROR)
oe.experts = { oe_padding, oe_malformed }
md.experts = { md_padding, md_malformed }

local function set_text(value, kind)
    local names = {}
    for _, choice in ipairs(sets[kind]) do
        if math.floor(value / 2 ^ choice[1]) % 2 == 1 then names[#names + 1] = choice[2] end
    end
    if #names == 0 then return "" end
    return " (" .. table.concat(names, " | ") .. ")"
end

local function is_zero(range)
    return range:bytes():tohex():find("[^0]") == nil
end

local function add_field(tree, field, range, padding)
    local name, primitive, kind, optional = field[2], field[5], field[6], field[7]
    if field[1] == "" then
        if not is_zero(range) then tree:add_proto_expert_info(padding, name .. " is not zero") end
    elseif primitive == "text" then
        local text = range:string()
        local zero = text:find("\\0", 1, true)
        if zero then text = text:sub(1, zero - 1) end
        tree:add(field.proto_field, range, text)
    elseif primitive == "raw" then
        tree:add(field.proto_field, range)
    else
        local item = tree:add_le(field.proto_field, range)
        if sets[kind] then item:append_text(set_text(range:le_uint(), kind)) end
        if optional and range:bytes():tohex() == nulls[primitive] then item:append_text(" (absent)") end
    end
end

-- Fields behind the block a sender knew are absent, bytes behind the block we know are from a newer version.
local function add_block(tree, message, block, padding, malformed)
    if block:len() < message.block then
        tree:add_proto_expert_info(malformed, block:len() .. " bytes, the template has " .. message.block)
    end
    for _, field in ipairs(message.fields) do
        if field[3] + field[4] <= block:len() then add_field(tree, field, block(field[3], field[4]), padding) end
    end
    if block:len() > message.block then
        tree:add(block(message.block), "Fields of a newer version: " .. block:len() - message.block .. " bytes")
    end
end

local function add_oe_header(tree, tvb)
    tree:add_le(oe_header.length, tvb(0, 4))
    tree:add_le(oe_header.encoding, tvb(4, 2))
    tree:add_le(oe_header.block, tvb(6, 2))
    tree:add_le(oe_header.template, tvb(8, 2))
    tree:add_le(oe_header.schema, tvb(10, 2))
    tree:add_le(oe_header.version, tvb(12, 2))
    local flags = tvb(14, 2)
    tree:add_le(oe_header.flags, flags):append_text(set_text(flags:le_uint(), "FrameFlag"))
    tree:add(oe_header.partition, tvb(15, 1))
    tree:add_le(oe_header.sequence, tvb(16, 8))
    tree:add_le(oe_header.time, tvb(24, 8))
end

local function sofh_is_good(tvb, offset)
    local length = tvb(offset, 4):le_uint()
    return tvb(offset + 4, 2):le_uint() == @SOFH@ and length > FRAME_HEADER_SIZE and length <= FRAME_LENGTH_MAX
end

local function oe_length(tvb, _, offset)
    -- Lost frame borders do not come back: show the rest as one malformed frame rather than wait for its end.
    if not sofh_is_good(tvb, offset) then return tvb:len() - offset end
    return tvb(offset, 4):le_uint()
end

local function oe_dissect(tvb, pinfo, root)
    pinfo.cols.protocol = "BULLRING-OE"
    local tree = root:add(oe, tvb())
    if not sofh_is_good(tvb, 0) or tvb:len() < FRAME_HEADER_SIZE then
        tree:add_proto_expert_info(oe_malformed)
        return tvb:len()
    end
    add_oe_header(tree, tvb)
    local block_length, template = tvb(6, 2):le_uint(), tvb(8, 2):le_uint()
    local message = oe_messages[template]
    local name = message and message.name or ("template " .. template)
    tree:append_text(", " .. name)
    pinfo.cols.info:append(" " .. name)
    if block_length ~= tvb:len() - FRAME_HEADER_SIZE then
        tree:add_proto_expert_info(oe_malformed, "blockLength does not fit messageLength")
    elseif message then
        add_block(tree, message, tvb(FRAME_HEADER_SIZE, block_length):tvb(), oe_padding, oe_malformed)
    end
    return tvb:len()
end

function oe.dissector(tvb, pinfo, root)
    pinfo.cols.info:clear()
    dissect_tcp_pdus(tvb, root, SOFH_SIZE, oe_length, oe_dissect)
    return tvb:len()
end

function md.dissector(tvb, pinfo, root)
    if tvb:len() < MARKET_HEADER_SIZE or tvb(4, 2):le_uint() ~= @MD_SCHEMA@ then return 0 end
    pinfo.cols.protocol = "BULLRING-MD"
    local block_length, template = tvb(0, 2):le_uint(), tvb(2, 2):le_uint()
    local message = md_messages[template]
    local name = message and message.name or ("template " .. template)
    local tree = root:add(md, tvb(), "Bullring market data, " .. name)
    tree:add_le(md_header.block, tvb(0, 2))
    tree:add_le(md_header.template, tvb(2, 2))
    tree:add_le(md_header.schema, tvb(4, 2))
    tree:add_le(md_header.version, tvb(6, 2))
    pinfo.cols.info:append(" " .. name)
    if tvb:len() < MARKET_HEADER_SIZE + block_length then
        tree:add_proto_expert_info(md_malformed, "blockLength is beyond the message")
    elseif message then
        add_block(tree, message, tvb(MARKET_HEADER_SIZE, block_length):tvb(), md_padding, md_malformed)
    end
    return tvb:len()
end

oe.prefs.port = Pref.uint("TCP port", 9100, "TCP port of order entry; 0 = none")
local current_port = 0

local function set_port(port)
    local ports = DissectorTable.get("tcp.port")
    if current_port ~= 0 then ports:remove(current_port, oe) end
    if port ~= 0 then ports:add(port, oe) end
    current_port = port
end

function oe.prefs_changed() set_port(oe.prefs.port) end
set_port(oe.prefs.port)
@TRANSPORTS@"""

_TRANSPORTS = """
-- SoupBinTCP asks its payload dissectors one by one; MoldUDP64 has to be told. A Wireshark without them gets the rest.
local function is_market_data(tvb, pinfo, root)
    return md.dissector(tvb, pinfo, root) > 0
end
pcall(function() md:register_heuristic("soupbintcp", is_market_data) end)
pcall(function() DissectorTable.get("moldudp64.payload"):add_for_decode_as(md) end)
"""


def dissector(orders: Schema, marketdata: Schema, banner: str) -> str:
    lines = [_HEAD.replace("@BANNER@", banner)]
    shown: set[str] = set()
    for schema in (orders, marketdata):
        for enum in schema.enums.values():
            if enum.name not in shown:
                shown.add(enum.name)
                lines.append(_enum(enum))
        for flags in schema.sets.values():
            choices = ", ".join(f'{{ {bit}, "{name}" }}' for name, bit in flags.choices)
            lines.append(f"sets.{flags.name} = {{ {choices} }}")
    lines.append("")
    lines.append("-- Per field: abbreviation ('' = padding), name, offset, size, primitive, enum or set, optional.")
    for schema, table in ((orders, "oe_messages"), (marketdata, "md_messages")):
        ambiguous = _ambiguous_names(schema)
        for message in schema.messages:
            lines += _message(message, table, ambiguous)
    lines.append("")
    body = _BODY.replace("@SOFH@", f"0x{SOFH_ENCODING_TYPE:X}").replace("@MD_SCHEMA@", str(marketdata.id))
    return "\n".join(lines) + body.replace("@TRANSPORTS@", _TRANSPORTS)


def _enum(enum: EnumType) -> str:
    values = ", ".join(f'[{value}] = "{name}"' for name, value in enum.values)
    return f"enums.{enum.name} = {{ {values} }}"


def _lua_type(field: Field) -> tuple[str, str]:
    """Return the primitive as the dissector calls it, and the enum or set."""
    if field.primitive == "char":
        return ("text" if field.is_text else "raw"), ""
    return field.primitive, "" if isinstance(field.type, SimpleType) else field.type.name


def _ambiguous_names(schema: Schema) -> set[str]:
    """Names that mean different types in different messages; Wireshark wants one type per filter name."""
    header = {snake(field.name) for composite in schema.composites.values() for field in composite.fields}
    kinds: dict[str, tuple[str, str]] = {}
    ambiguous = set(header)
    for message in schema.messages:
        for field in message.value_fields:
            if kinds.setdefault(field.snake, _lua_type(field)) != _lua_type(field):
                ambiguous.add(field.snake)
    return ambiguous


def _message(message: Message, table: str, ambiguous: set[str]) -> list[str]:
    lines = [f'{table}[{message.id}] = {{ name = "{message.name}", block = {message.block_length}, fields = {{']
    for field in message.fields:
        primitive, kind = _lua_type(field)
        abbreviation = f"{message.snake}.{field.snake}" if field.snake in ambiguous else field.snake
        if field.is_padding:
            abbreviation = ""
        optional = "true" if field.is_optional else "false"
        place = f"{field.offset}, {field.size}"
        lines.append(f'    {{ "{abbreviation}", "{field.name}", {place}, "{primitive}", "{kind}", {optional} }},')
    return [*lines, "} }"]
