from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RtaRequest(_message.Message):
    __slots__ = ("id", "is_ping", "is_test", "device", "siteset_id", "request_info", "exps", "ad_infos", "unified_request_id", "fl_models", "crt_template_id", "rta_trace_id_list", "ad_request_time")
    class OperatingSystem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OS_UNKNOWN: _ClassVar[RtaRequest.OperatingSystem]
        OS_IOS: _ClassVar[RtaRequest.OperatingSystem]
        OS_ANDROID: _ClassVar[RtaRequest.OperatingSystem]
        OS_WINDOWS: _ClassVar[RtaRequest.OperatingSystem]
        OS_SYMBIAN: _ClassVar[RtaRequest.OperatingSystem]
        OS_JAVA: _ClassVar[RtaRequest.OperatingSystem]
        OS_MAC: _ClassVar[RtaRequest.OperatingSystem]
        OS_HARMONY: _ClassVar[RtaRequest.OperatingSystem]
    OS_UNKNOWN: RtaRequest.OperatingSystem
    OS_IOS: RtaRequest.OperatingSystem
    OS_ANDROID: RtaRequest.OperatingSystem
    OS_WINDOWS: RtaRequest.OperatingSystem
    OS_SYMBIAN: RtaRequest.OperatingSystem
    OS_JAVA: RtaRequest.OperatingSystem
    OS_MAC: RtaRequest.OperatingSystem
    OS_HARMONY: RtaRequest.OperatingSystem
    class Device(_message.Message):
        __slots__ = ("os", "idfa_md5sum", "imei_md5sum", "android_id_md5sum", "mac_md5sum", "oaid_md5sum", "ip", "doubtful_ids_list", "cached_deviceid_type", "qaid_infos", "wx_openid")
        class DeviceIdTag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            IDFA_MD5_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            IMEI_MD5_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            ANDROIDID_MD5_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            MAC_MD5_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            OAID_MD5_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            OAID_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
            QAID_DOUBTFUL: _ClassVar[RtaRequest.Device.DeviceIdTag]
        IDFA_MD5_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        IMEI_MD5_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        ANDROIDID_MD5_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        MAC_MD5_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        OAID_MD5_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        OAID_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        QAID_DOUBTFUL: RtaRequest.Device.DeviceIdTag
        class CacheDeviceIdType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            IDFA_MD5: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            IMEI_MD5: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            OAID: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            OAID_MD5: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            ANDROIDID_MD5: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            MAC_MD5: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            NIL: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
            QAID: _ClassVar[RtaRequest.Device.CacheDeviceIdType]
        IDFA_MD5: RtaRequest.Device.CacheDeviceIdType
        IMEI_MD5: RtaRequest.Device.CacheDeviceIdType
        OAID: RtaRequest.Device.CacheDeviceIdType
        OAID_MD5: RtaRequest.Device.CacheDeviceIdType
        ANDROIDID_MD5: RtaRequest.Device.CacheDeviceIdType
        MAC_MD5: RtaRequest.Device.CacheDeviceIdType
        NIL: RtaRequest.Device.CacheDeviceIdType
        QAID: RtaRequest.Device.CacheDeviceIdType
        class QaidInfo(_message.Message):
            __slots__ = ("version", "qaid", "origin_version", "qaid_md5sum")
            VERSION_FIELD_NUMBER: _ClassVar[int]
            QAID_FIELD_NUMBER: _ClassVar[int]
            ORIGIN_VERSION_FIELD_NUMBER: _ClassVar[int]
            QAID_MD5SUM_FIELD_NUMBER: _ClassVar[int]
            version: int
            qaid: str
            origin_version: str
            qaid_md5sum: str
            def __init__(self, version: _Optional[int] = ..., qaid: _Optional[str] = ..., origin_version: _Optional[str] = ..., qaid_md5sum: _Optional[str] = ...) -> None: ...
        class WxOpenid(_message.Message):
            __slots__ = ("appid", "openid")
            APPID_FIELD_NUMBER: _ClassVar[int]
            OPENID_FIELD_NUMBER: _ClassVar[int]
            appid: str
            openid: str
            def __init__(self, appid: _Optional[str] = ..., openid: _Optional[str] = ...) -> None: ...
        OS_FIELD_NUMBER: _ClassVar[int]
        IDFA_MD5SUM_FIELD_NUMBER: _ClassVar[int]
        IMEI_MD5SUM_FIELD_NUMBER: _ClassVar[int]
        ANDROID_ID_MD5SUM_FIELD_NUMBER: _ClassVar[int]
        MAC_MD5SUM_FIELD_NUMBER: _ClassVar[int]
        OAID_MD5SUM_FIELD_NUMBER: _ClassVar[int]
        IP_FIELD_NUMBER: _ClassVar[int]
        DOUBTFUL_IDS_LIST_FIELD_NUMBER: _ClassVar[int]
        CACHED_DEVICEID_TYPE_FIELD_NUMBER: _ClassVar[int]
        QAID_INFOS_FIELD_NUMBER: _ClassVar[int]
        WX_OPENID_FIELD_NUMBER: _ClassVar[int]
        os: RtaRequest.OperatingSystem
        idfa_md5sum: str
        imei_md5sum: str
        android_id_md5sum: str
        mac_md5sum: str
        oaid_md5sum: str
        ip: str
        doubtful_ids_list: _containers.RepeatedScalarFieldContainer[RtaRequest.Device.DeviceIdTag]
        cached_deviceid_type: RtaRequest.Device.CacheDeviceIdType
        qaid_infos: _containers.RepeatedCompositeFieldContainer[RtaRequest.Device.QaidInfo]
        wx_openid: _containers.RepeatedCompositeFieldContainer[RtaRequest.Device.WxOpenid]
        def __init__(self, os: _Optional[_Union[RtaRequest.OperatingSystem, str]] = ..., idfa_md5sum: _Optional[str] = ..., imei_md5sum: _Optional[str] = ..., android_id_md5sum: _Optional[str] = ..., mac_md5sum: _Optional[str] = ..., oaid_md5sum: _Optional[str] = ..., ip: _Optional[str] = ..., doubtful_ids_list: _Optional[_Iterable[_Union[RtaRequest.Device.DeviceIdTag, str]]] = ..., cached_deviceid_type: _Optional[_Union[RtaRequest.Device.CacheDeviceIdType, str]] = ..., qaid_infos: _Optional[_Iterable[_Union[RtaRequest.Device.QaidInfo, _Mapping]]] = ..., wx_openid: _Optional[_Iterable[_Union[RtaRequest.Device.WxOpenid, _Mapping]]] = ...) -> None: ...
    class RequestInfo(_message.Message):
        __slots__ = ("request_type",)
        class RequestType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            NORMAL_REQUEST: _ClassVar[RtaRequest.RequestInfo.RequestType]
            ADLIST_REQUEST: _ClassVar[RtaRequest.RequestInfo.RequestType]
        NORMAL_REQUEST: RtaRequest.RequestInfo.RequestType
        ADLIST_REQUEST: RtaRequest.RequestInfo.RequestType
        REQUEST_TYPE_FIELD_NUMBER: _ClassVar[int]
        request_type: RtaRequest.RequestInfo.RequestType
        def __init__(self, request_type: _Optional[_Union[RtaRequest.RequestInfo.RequestType, str]] = ...) -> None: ...
    class Experiment(_message.Message):
        __slots__ = ("exp_id",)
        EXP_ID_FIELD_NUMBER: _ClassVar[int]
        exp_id: int
        def __init__(self, exp_id: _Optional[int] = ...) -> None: ...
    class AdInfo(_message.Message):
        __slots__ = ("adgroup_id", "creative_infos", "product_infos", "advertiser_id", "out_target_id")
        class CreativeInfo(_message.Message):
            __slots__ = ("creative_id", "crt_template_id")
            CREATIVE_ID_FIELD_NUMBER: _ClassVar[int]
            CRT_TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
            creative_id: int
            crt_template_id: int
            def __init__(self, creative_id: _Optional[int] = ..., crt_template_id: _Optional[int] = ...) -> None: ...
        class ProductInfo(_message.Message):
            __slots__ = ("product_lib", "out_product_id")
            PRODUCT_LIB_FIELD_NUMBER: _ClassVar[int]
            OUT_PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
            product_lib: int
            out_product_id: str
            def __init__(self, product_lib: _Optional[int] = ..., out_product_id: _Optional[str] = ...) -> None: ...
        ADGROUP_ID_FIELD_NUMBER: _ClassVar[int]
        CREATIVE_INFOS_FIELD_NUMBER: _ClassVar[int]
        PRODUCT_INFOS_FIELD_NUMBER: _ClassVar[int]
        ADVERTISER_ID_FIELD_NUMBER: _ClassVar[int]
        OUT_TARGET_ID_FIELD_NUMBER: _ClassVar[int]
        adgroup_id: int
        creative_infos: _containers.RepeatedCompositeFieldContainer[RtaRequest.AdInfo.CreativeInfo]
        product_infos: _containers.RepeatedCompositeFieldContainer[RtaRequest.AdInfo.ProductInfo]
        advertiser_id: int
        out_target_id: str
        def __init__(self, adgroup_id: _Optional[int] = ..., creative_infos: _Optional[_Iterable[_Union[RtaRequest.AdInfo.CreativeInfo, _Mapping]]] = ..., product_infos: _Optional[_Iterable[_Union[RtaRequest.AdInfo.ProductInfo, _Mapping]]] = ..., advertiser_id: _Optional[int] = ..., out_target_id: _Optional[str] = ...) -> None: ...
    class FLModel(_message.Message):
        __slots__ = ("model_id", "model_name", "model_version", "model_type", "embedding")
        class ModelType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            DEFAULT: _ClassVar[RtaRequest.FLModel.ModelType]
        DEFAULT: RtaRequest.FLModel.ModelType
        MODEL_ID_FIELD_NUMBER: _ClassVar[int]
        MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
        MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
        MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
        EMBEDDING_FIELD_NUMBER: _ClassVar[int]
        model_id: int
        model_name: str
        model_version: str
        model_type: RtaRequest.FLModel.ModelType
        embedding: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, model_id: _Optional[int] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., model_type: _Optional[_Union[RtaRequest.FLModel.ModelType, str]] = ..., embedding: _Optional[_Iterable[float]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    IS_PING_FIELD_NUMBER: _ClassVar[int]
    IS_TEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SITESET_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_INFO_FIELD_NUMBER: _ClassVar[int]
    EXPS_FIELD_NUMBER: _ClassVar[int]
    AD_INFOS_FIELD_NUMBER: _ClassVar[int]
    UNIFIED_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FL_MODELS_FIELD_NUMBER: _ClassVar[int]
    CRT_TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    RTA_TRACE_ID_LIST_FIELD_NUMBER: _ClassVar[int]
    AD_REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    is_ping: bool
    is_test: bool
    device: RtaRequest.Device
    siteset_id: int
    request_info: RtaRequest.RequestInfo
    exps: _containers.RepeatedCompositeFieldContainer[RtaRequest.Experiment]
    ad_infos: _containers.RepeatedCompositeFieldContainer[RtaRequest.AdInfo]
    unified_request_id: str
    fl_models: _containers.RepeatedCompositeFieldContainer[RtaRequest.FLModel]
    crt_template_id: _containers.RepeatedScalarFieldContainer[int]
    rta_trace_id_list: _containers.RepeatedScalarFieldContainer[str]
    ad_request_time: int
    def __init__(self, id: _Optional[str] = ..., is_ping: _Optional[bool] = ..., is_test: _Optional[bool] = ..., device: _Optional[_Union[RtaRequest.Device, _Mapping]] = ..., siteset_id: _Optional[int] = ..., request_info: _Optional[_Union[RtaRequest.RequestInfo, _Mapping]] = ..., exps: _Optional[_Iterable[_Union[RtaRequest.Experiment, _Mapping]]] = ..., ad_infos: _Optional[_Iterable[_Union[RtaRequest.AdInfo, _Mapping]]] = ..., unified_request_id: _Optional[str] = ..., fl_models: _Optional[_Iterable[_Union[RtaRequest.FLModel, _Mapping]]] = ..., crt_template_id: _Optional[_Iterable[int]] = ..., rta_trace_id_list: _Optional[_Iterable[str]] = ..., ad_request_time: _Optional[int] = ...) -> None: ...

class DynamicProductInfo(_message.Message):
    __slots__ = ("product_lib", "products")
    class Product(_message.Message):
        __slots__ = ("id", "priority", "timestamp", "sdpa_product_id", "id_str")
        ID_FIELD_NUMBER: _ClassVar[int]
        PRIORITY_FIELD_NUMBER: _ClassVar[int]
        TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
        SDPA_PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
        ID_STR_FIELD_NUMBER: _ClassVar[int]
        id: int
        priority: int
        timestamp: int
        sdpa_product_id: str
        id_str: str
        def __init__(self, id: _Optional[int] = ..., priority: _Optional[int] = ..., timestamp: _Optional[int] = ..., sdpa_product_id: _Optional[str] = ..., id_str: _Optional[str] = ...) -> None: ...
    PRODUCT_LIB_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    product_lib: int
    products: _containers.RepeatedCompositeFieldContainer[DynamicProductInfo.Product]
    def __init__(self, product_lib: _Optional[int] = ..., products: _Optional[_Iterable[_Union[DynamicProductInfo.Product, _Mapping]]] = ...) -> None: ...

class DynamicContentInfo(_message.Message):
    __slots__ = ("tags",)
    class Tag(_message.Message):
        __slots__ = ("name", "value")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: str
        def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedCompositeFieldContainer[DynamicContentInfo.Tag]
    def __init__(self, tags: _Optional[_Iterable[_Union[DynamicContentInfo.Tag, _Mapping]]] = ...) -> None: ...

class RtaResponse(_message.Message):
    __slots__ = ("request_id", "code", "processing_time_ms", "response_cache_time", "dsp_tag", "dynamic_product_infos", "out_target_id", "target_infos", "aid_whitelist", "ad_results", "fl_model_res_infos", "dsp_tag_str", "sdpa_dynamic_product_infos")
    class SpAssistType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[RtaResponse.SpAssistType]
        REPLACE_ALL: _ClassVar[RtaResponse.SpAssistType]
        REPLACE_TARGETINFO: _ClassVar[RtaResponse.SpAssistType]
    NONE: RtaResponse.SpAssistType
    REPLACE_ALL: RtaResponse.SpAssistType
    REPLACE_TARGETINFO: RtaResponse.SpAssistType
    class SpAssist(_message.Message):
        __slots__ = ("type",)
        TYPE_FIELD_NUMBER: _ClassVar[int]
        type: RtaResponse.SpAssistType
        def __init__(self, type: _Optional[_Union[RtaResponse.SpAssistType, str]] = ...) -> None: ...
    class TargetInfo(_message.Message):
        __slots__ = ("out_target_id", "cpc_price", "dynamic_product_infos", "cpa_price", "user_weight_factor", "cpc_factor", "aid", "dsp_tag", "dsp_tag_str", "pcvr", "advertiser_id", "sdpa_product_id", "sdpa_product_lib", "dynamic_content_infos", "sp_action")
        OUT_TARGET_ID_FIELD_NUMBER: _ClassVar[int]
        CPC_PRICE_FIELD_NUMBER: _ClassVar[int]
        DYNAMIC_PRODUCT_INFOS_FIELD_NUMBER: _ClassVar[int]
        CPA_PRICE_FIELD_NUMBER: _ClassVar[int]
        USER_WEIGHT_FACTOR_FIELD_NUMBER: _ClassVar[int]
        CPC_FACTOR_FIELD_NUMBER: _ClassVar[int]
        AID_FIELD_NUMBER: _ClassVar[int]
        DSP_TAG_FIELD_NUMBER: _ClassVar[int]
        DSP_TAG_STR_FIELD_NUMBER: _ClassVar[int]
        PCVR_FIELD_NUMBER: _ClassVar[int]
        ADVERTISER_ID_FIELD_NUMBER: _ClassVar[int]
        SDPA_PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
        SDPA_PRODUCT_LIB_FIELD_NUMBER: _ClassVar[int]
        DYNAMIC_CONTENT_INFOS_FIELD_NUMBER: _ClassVar[int]
        SP_ACTION_FIELD_NUMBER: _ClassVar[int]
        out_target_id: str
        cpc_price: int
        dynamic_product_infos: _containers.RepeatedCompositeFieldContainer[DynamicProductInfo]
        cpa_price: int
        user_weight_factor: float
        cpc_factor: float
        aid: int
        dsp_tag: int
        dsp_tag_str: str
        pcvr: float
        advertiser_id: int
        sdpa_product_id: str
        sdpa_product_lib: int
        dynamic_content_infos: _containers.RepeatedCompositeFieldContainer[DynamicContentInfo]
        sp_action: RtaResponse.SpAssist
        def __init__(self, out_target_id: _Optional[str] = ..., cpc_price: _Optional[int] = ..., dynamic_product_infos: _Optional[_Iterable[_Union[DynamicProductInfo, _Mapping]]] = ..., cpa_price: _Optional[int] = ..., user_weight_factor: _Optional[float] = ..., cpc_factor: _Optional[float] = ..., aid: _Optional[int] = ..., dsp_tag: _Optional[int] = ..., dsp_tag_str: _Optional[str] = ..., pcvr: _Optional[float] = ..., advertiser_id: _Optional[int] = ..., sdpa_product_id: _Optional[str] = ..., sdpa_product_lib: _Optional[int] = ..., dynamic_content_infos: _Optional[_Iterable[_Union[DynamicContentInfo, _Mapping]]] = ..., sp_action: _Optional[_Union[RtaResponse.SpAssist, _Mapping]] = ...) -> None: ...
    class AdResult(_message.Message):
        __slots__ = ("adgroup_id", "creative_results", "cpc_price", "ignore", "product_results", "cpa_price", "raise_factor_to_tencent")
        class CreativeResult(_message.Message):
            __slots__ = ("creative_id", "cpc_price", "out_raise_factor", "cpa_price")
            CREATIVE_ID_FIELD_NUMBER: _ClassVar[int]
            CPC_PRICE_FIELD_NUMBER: _ClassVar[int]
            OUT_RAISE_FACTOR_FIELD_NUMBER: _ClassVar[int]
            CPA_PRICE_FIELD_NUMBER: _ClassVar[int]
            creative_id: int
            cpc_price: int
            out_raise_factor: float
            cpa_price: int
            def __init__(self, creative_id: _Optional[int] = ..., cpc_price: _Optional[int] = ..., out_raise_factor: _Optional[float] = ..., cpa_price: _Optional[int] = ...) -> None: ...
        class ProductResult(_message.Message):
            __slots__ = ("product_lib", "out_product_id", "cpc_price")
            PRODUCT_LIB_FIELD_NUMBER: _ClassVar[int]
            OUT_PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
            CPC_PRICE_FIELD_NUMBER: _ClassVar[int]
            product_lib: int
            out_product_id: str
            cpc_price: int
            def __init__(self, product_lib: _Optional[int] = ..., out_product_id: _Optional[str] = ..., cpc_price: _Optional[int] = ...) -> None: ...
        ADGROUP_ID_FIELD_NUMBER: _ClassVar[int]
        CREATIVE_RESULTS_FIELD_NUMBER: _ClassVar[int]
        CPC_PRICE_FIELD_NUMBER: _ClassVar[int]
        IGNORE_FIELD_NUMBER: _ClassVar[int]
        PRODUCT_RESULTS_FIELD_NUMBER: _ClassVar[int]
        CPA_PRICE_FIELD_NUMBER: _ClassVar[int]
        RAISE_FACTOR_TO_TENCENT_FIELD_NUMBER: _ClassVar[int]
        adgroup_id: int
        creative_results: _containers.RepeatedCompositeFieldContainer[RtaResponse.AdResult.CreativeResult]
        cpc_price: int
        ignore: bool
        product_results: _containers.RepeatedCompositeFieldContainer[RtaResponse.AdResult.ProductResult]
        cpa_price: int
        raise_factor_to_tencent: float
        def __init__(self, adgroup_id: _Optional[int] = ..., creative_results: _Optional[_Iterable[_Union[RtaResponse.AdResult.CreativeResult, _Mapping]]] = ..., cpc_price: _Optional[int] = ..., ignore: _Optional[bool] = ..., product_results: _Optional[_Iterable[_Union[RtaResponse.AdResult.ProductResult, _Mapping]]] = ..., cpa_price: _Optional[int] = ..., raise_factor_to_tencent: _Optional[float] = ...) -> None: ...
    class FLModelResInfo(_message.Message):
        __slots__ = ("model_id", "status")
        class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            UNKNOWN: _ClassVar[RtaResponse.FLModelResInfo.Status]
            SUCCESS: _ClassVar[RtaResponse.FLModelResInfo.Status]
            FAILED: _ClassVar[RtaResponse.FLModelResInfo.Status]
        UNKNOWN: RtaResponse.FLModelResInfo.Status
        SUCCESS: RtaResponse.FLModelResInfo.Status
        FAILED: RtaResponse.FLModelResInfo.Status
        MODEL_ID_FIELD_NUMBER: _ClassVar[int]
        STATUS_FIELD_NUMBER: _ClassVar[int]
        model_id: int
        status: RtaResponse.FLModelResInfo.Status
        def __init__(self, model_id: _Optional[int] = ..., status: _Optional[_Union[RtaResponse.FLModelResInfo.Status, str]] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_CACHE_TIME_FIELD_NUMBER: _ClassVar[int]
    DSP_TAG_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_PRODUCT_INFOS_FIELD_NUMBER: _ClassVar[int]
    OUT_TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_INFOS_FIELD_NUMBER: _ClassVar[int]
    AID_WHITELIST_FIELD_NUMBER: _ClassVar[int]
    AD_RESULTS_FIELD_NUMBER: _ClassVar[int]
    FL_MODEL_RES_INFOS_FIELD_NUMBER: _ClassVar[int]
    DSP_TAG_STR_FIELD_NUMBER: _ClassVar[int]
    SDPA_DYNAMIC_PRODUCT_INFOS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    code: int
    processing_time_ms: int
    response_cache_time: int
    dsp_tag: int
    dynamic_product_infos: _containers.RepeatedCompositeFieldContainer[DynamicProductInfo]
    out_target_id: _containers.RepeatedScalarFieldContainer[str]
    target_infos: _containers.RepeatedCompositeFieldContainer[RtaResponse.TargetInfo]
    aid_whitelist: _containers.RepeatedScalarFieldContainer[int]
    ad_results: _containers.RepeatedCompositeFieldContainer[RtaResponse.AdResult]
    fl_model_res_infos: _containers.RepeatedCompositeFieldContainer[RtaResponse.FLModelResInfo]
    dsp_tag_str: str
    sdpa_dynamic_product_infos: _containers.RepeatedCompositeFieldContainer[DynamicProductInfo]
    def __init__(self, request_id: _Optional[str] = ..., code: _Optional[int] = ..., processing_time_ms: _Optional[int] = ..., response_cache_time: _Optional[int] = ..., dsp_tag: _Optional[int] = ..., dynamic_product_infos: _Optional[_Iterable[_Union[DynamicProductInfo, _Mapping]]] = ..., out_target_id: _Optional[_Iterable[str]] = ..., target_infos: _Optional[_Iterable[_Union[RtaResponse.TargetInfo, _Mapping]]] = ..., aid_whitelist: _Optional[_Iterable[int]] = ..., ad_results: _Optional[_Iterable[_Union[RtaResponse.AdResult, _Mapping]]] = ..., fl_model_res_infos: _Optional[_Iterable[_Union[RtaResponse.FLModelResInfo, _Mapping]]] = ..., dsp_tag_str: _Optional[str] = ..., sdpa_dynamic_product_infos: _Optional[_Iterable[_Union[DynamicProductInfo, _Mapping]]] = ...) -> None: ...
